#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the Debian package of this checkout into dist/, for the distribution that it runs on, or for another one in a
# throw-away copy of a tree of that (see in-tree.sh). Needs root to install what is missing, and for trees.
#
#   packaging/build-deb.sh [--lint] [DISTRO]
#   packaging/build-deb.sh [--lint] --staged      # in what stage.sh copied; the package goes beside it
#
# --lint   run lintian; warnings are failures
# VERSION  in the environment: instead of the version of packaging/debian/changelog
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
checkout=$(dirname "$here")

# In the staged tree, on the distribution that is built for.
build() {
    cp -a packaging/debian debian
    [ -z "${VERSION-}" ] || sed -i "1s/([^)]*)/($VERSION)/" debian/changelog
    install_missing
    # A later release of the distribution gets a higher version, so that it is upgraded along.
    sed -i "1s/)/+deb$(. /etc/os-release && echo "$VERSION_ID"))/" debian/changelog
    dpkg-buildpackage --build=binary --unsigned-changes --no-check-builddeps
    [ -z "$lint" ] || lintian --fail-on error,warning --allow-root --tag-display-limit 0 --info ../cgnetd_*.changes
}

install_missing() {
    local missing=()
    { command -v gcc && command -v dpkg-buildpackage; } >/dev/null || missing+=(build-essential)
    [ -z "$lint" ] || command -v lintian >/dev/null || missing+=(lintian)
    dpkg-checkbuilddeps 2>/dev/null && [ ${#missing[@]} -eq 0 ] && return
    apt-get -qq update
    [ ${#missing[@]} -eq 0 ] || apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
    apt-get -qq build-dep -y --no-install-recommends "$PWD" >/dev/null
}

lint=
if [ "${1-}" = --lint ]; then
    lint=$1
    shift
fi
if [ "${1-}" = --staged ]; then
    cd "$checkout"
    build
    exit
fi

own=$(. /etc/os-release && echo "${VERSION_CODENAME-}")
distro=${1:-$own}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$here/stage.sh" "$work/cgnetd"
if [ "$distro" = "$own" ]; then
    DEBIAN_FRONTEND=noninteractive "$work/cgnetd/packaging/build-deb.sh" $lint --staged
else
    "$here/in-tree.sh" "$distro" "$work" cgnetd/packaging/build-deb.sh $lint --staged
fi
mkdir -p "$checkout/dist"
cp "$work"/cgnetd_*.deb "$checkout/dist/"
(cd "$work" && ls cgnetd_*.deb) | sed 's#^#dist/#'
