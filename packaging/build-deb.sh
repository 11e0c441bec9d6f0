#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the Debian package of this checkout into dist/, for the distribution that it runs on, or for another one in a
# throw-away copy of a tree of that. Needs root to install what is missing, and for trees.
#
#   packaging/build-deb.sh [--lint] [DISTRO]
#
# DISTRO   a code name; its tree is $CGNETD_BEDS/DISTRO (default: /var/cache/cgnetd-beds), as debootstrap makes it
# --lint   run lintian; warnings are failures
# VERSION  in the environment: instead of the version of packaging/debian/changelog
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
checkout=$(dirname "$here")
beds=${CGNETD_BEDS:-/var/cache/cgnetd-beds}
lint=
[ "${1-}" != --lint ] || { lint=--lint && shift; }
own=$(. /etc/os-release && echo "${VERSION_CODENAME-}")
distro=${1:-$own}

# What goes into the package and into building it, as it is in the checkout now; never what was built there before.
stage() {
    local to=$1 version
    mkdir -p "$to"
    (cd "$checkout" && git ls-files -z LICENSES README.md bpf config daemon docs packaging pyproject.toml |
        tar --null --files-from - --create) | tar -C "$to" --extract
    cp -a "$to/packaging/debian" "$to/debian"
    version=${VERSION:-$(dpkg-parsechangelog -l "$to/debian/changelog" -S Version)}
    # A later release of the distribution gets a higher version, so that it is upgraded along.
    sed -i "1s/([^)]*)/($version+deb$(. "${2%/}/etc/os-release" && echo "$VERSION_ID"))/" "$to/debian/changelog"
}

# Runs in the staged tree, of the distribution that is built for.
build() {
    install_missing
    dpkg-buildpackage --build=binary --unsigned-changes --no-check-builddeps
    [ -z "$lint" ] || lintian --fail-on error,warning --tag-display-limit 0 --info ../cgnetd_*.changes
}

install_missing() {
    local missing=()
    dpkg-checkbuilddeps 2>/dev/null || missing+=(build-deps)
    command -v dpkg-buildpackage >/dev/null || missing+=(dpkg-dev)
    [ -z "$lint" ] || command -v lintian >/dev/null || missing+=(lintian)
    [ ${#missing[@]} -gt 0 ] || return 0
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends build-essential ${missing[*]/build-deps/} >/dev/null
    apt-get -qq build-dep -y --no-install-recommends "$PWD" >/dev/null
}

# The tree is left as it is: the work is done in a copy on write that is gone with its mounts, which are gone with us.
build_in_tree() {
    local tree=$beds/$distro
    [ -e "$tree/etc/os-release" ] || {
        echo "build-deb: there is no tree of $distro in $beds; make one: debootstrap --variant=minbase $distro $tree" >&2
        exit 1
    }
    stage "$work/cgnetd" "$tree"
    unshare --mount --pid --fork --kill-child --propagation private bash -euc '
        tree=$1 work=$2 lint=$3 root=$2/root
        mkdir "$root" "$work/memory"
        mount -t tmpfs -o mode=755 cgnetd-build "$work/memory"
        mkdir "$work/memory/upper" "$work/memory/work"
        mount -t overlay -o "lowerdir=$tree,upperdir=$work/memory/upper,workdir=$work/memory/work" cgnetd-build "$root"
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount -t tmpfs -o mode=1777 cgnetd-build "$root/tmp"
        mkdir -p "$root/build"
        mount --bind "$work" "$root/build"
        cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
        cd /
        exec chroot "$root" /build/cgnetd/packaging/build-deb.sh --inside $lint' \
        build "$tree" "$work" "$lint"
}

if [ "${1-}" = --inside ]; then # the part of build_in_tree that runs in the tree
    [ "${2-}" != --lint ] || lint=--lint
    export HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
    cd "$checkout"
    build
    exit
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ "$distro" = "$own" ]; then
    stage "$work/cgnetd" /
    (cd "$work/cgnetd" && build)
else
    build_in_tree
fi
mkdir -p "$checkout/dist"
cp "$work"/cgnetd_*.deb "$checkout/dist/"
(cd "$work" && ls cgnetd_*.deb) | sed 's#^#dist/#'
