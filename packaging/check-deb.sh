#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs, upgrades, removes and purges a built package in a throw-away copy of its distribution's tree (see in-tree.sh),
# on this kernel, with a policy in force and a process that keeps calling: what the package promises, without systemd.
#
#   packaging/check-deb.sh DISTRO [DEB]          DEB: default: the newest one of that release in dist/
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
OLD_VERSION=0.0.1
PINS=/sys/fs/bpf/cgnetd

# --- on the outside

outside() {
    local distro=$1 deb=${2-} work group code=0
    local release
    release=$(. "${CGNETD_BEDS:-/var/cache/cgnetd-beds}/$distro/etc/os-release" && echo "$VERSION_ID")
    deb=${deb:-$(ls -t "$here/../dist/"cgnetd_*+deb"$release"_*.deb | head -n 1)}
    work=$(mktemp -d)
    cp "$here/check-deb.sh" "$work/"
    cp "$deb" "$work/new.deb"
    dpkg-deb --raw-extract "$deb" "$work/old"
    sed -i "s/^Version: .*/Version: $OLD_VERSION/" "$work/old/DEBIAN/control"
    dpkg-deb --root-owner-group --build "$work/old" "$work/old.deb" >/dev/null
    group=cgnetd-package-$$
    trap 'rm -rf "$work"; remove_cgroup "$group"' EXIT
    "$here/in-tree.sh" "$distro" "$work" ./check-deb.sh --inside "$group" || code=$?
    [ "$code" = 0 ] || echo "check-deb: $(basename "$deb") on $distro: failed" >&2
    exit "$code"
}

remove_cgroup() {
    local mount
    mount=$(awk '$9 == "cgroup2" || $8 == "cgroup2" || $10 == "cgroup2" {print $5; exit}' /proc/self/mountinfo)
    [ ! -d "$mount/$1" ] || find "$mount/$1" -depth -type d -exec rmdir {} +
}

# --- in the tree

say() { echo "check-deb: $*"; }
fail() {
    echo "check-deb: FAILED: $*" >&2
    exit 1
}
apt_() { apt-get -qq -o Dpkg::Use-Pty=0 "$@" >/work/apt.log 2>&1; }
must() { "$@" || { cat /work/apt.log >&2 && fail "$*"; }; }
must_not() { ! "$@" || { cat /work/apt.log >&2 && fail "it must not succeed: $*"; }; }

# A maintainer script, as dpkg calls it.
script() { DPKG_MAINTSCRIPT_PACKAGE=cgnetd "/var/lib/dpkg/info/cgnetd.$1" "${@:2}"; }

# Every file, and who is in which group; not what apt and dpkg keep of any package that ever was.
inventory() {
    find / -xdev \( -path /work -o -path /tmp -o -path /var/cache -o -path /var/lib/apt -o -path /var/log -o \
        -path /var/lib/dpkg/\*-old -o -path /etc/\*- -o -path /var/lib/systemd/catalog \) -prune -o -print
    find /run /sys/fs/bpf -path /run/mount -prune -o -print # libmount's, of the mounts made here
    cat /etc/group /etc/gshadow /etc/passwd
}

# The errno of a connect that a policy denies, made in the cgroup: EHOSTUNREACH by the policy, ECONNREFUSED without one.
call() {
    sh -c 'echo $$ >"$0/cgroup.procs" && exec python3 -I -c "
import errno, socket
print(errno.errorcode[socket.socket().connect_ex((\"127.0.0.1\", 9))])"' "$1"
}
denied() { [ "$(call "$governed")" = EHOSTUNREACH ] || fail "not denied: $*"; }
free() { [ "$(call "$governed")" = ECONNREFUSED ] || fail "still denied: $*"; }

once() { cgnetd --once >/work/once.log || { cat /work/once.log && fail "$*"; }; }

configure() {
    cat >/etc/cgnetd/cgnetd.yaml.d/here.yaml <<EOF
cgroup_root: $root_group
EOF
    cat >/etc/cgnetd/policy.d/deny.yaml <<EOF
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: deny}
spec:
  subject: {cgroups: [/governed]}
  egress: [{name: all, action: deny, errno: EHOSTUNREACH}]
EOF
}

check_files() {
    local file
    for file in /usr/bin/cgnetd /usr/bin/cgnetctl /etc/cgnetd/cgnetd.yaml /usr/share/cgnetd/policy.schema.json \
        /usr/lib/cgnetd/python/cgnetd/kernel/objects/connect.bpf.o /usr/share/man/man8/cgnetd.8.gz \
        /usr/share/man/man1/cgnetctl.1.gz /usr/share/man/man5/cgnetd.yaml.5.gz /usr/share/man/man5/cgnetd.policy.5.gz \
        /usr/share/bash-completion/completions/cgnetctl /usr/share/zsh/vendor-completions/_cgnetctl \
        /usr/share/fish/vendor_completions.d/cgnetctl.fish /usr/share/doc/cgnetd/examples/web-service.yaml \
        /usr/lib/tmpfiles.d/cgnetd.conf /usr/lib/sysusers.d/cgnetd.conf /run/cgnetd /var/lib/cgnetd "$PINS" \
        /etc/systemd/system/sysinit.target.wants/cgnetd.service; do
        [ -e "$file" ] || [ -L "$file" ] || fail "$file is not there"
    done
    [ ! -e /run/cgnetd/installing ] || fail "the installation left its mark"
    [ -z "$(ls -A /etc/cgnetd/policy.d)" ] || fail "policy.d is not empty"
    getent group cgnetd >/dev/null || fail "there is no group cgnetd"
    # Not in a pipe: grep that ends early would have journalctl fail.
    journalctl --list-catalog >/work/catalog
    grep -q 'cgnetd: A network call was denied by policy' /work/catalog || fail "the catalog was not registered"
    cgnetctl check /usr/share/doc/cgnetd/examples/web-service.yaml >/dev/null || fail "an example is not valid"
}

# Calls all the while that something else happens; every one must be denied.
keep_calling() {
    sh -c 'echo $$ >"$0/cgroup.procs" && exec python3 -I -c "
import errno, signal, socket, sys, time
going = [True]
signal.signal(signal.SIGTERM, lambda *_: going.clear())
calls = escapes = 0
while going:
    with socket.socket() as made:
        escapes += made.connect_ex((\"127.0.0.1\", 9)) != errno.EHOSTUNREACH
    calls += 1
    time.sleep(0.002)
print(calls, escapes)"' "$governed" >/work/calls &
    caller=$!
}
end_calling() {
    local calls escapes
    kill "$caller"
    wait "$caller"
    read -r calls escapes </work/calls
    [ "$calls" -gt 100 ] && [ "$escapes" = 0 ] || fail "$1: $escapes of $calls calls were not denied"
    say "$1: $calls calls, all denied"
}

check_upgrade() {
    must apt_ install ./old.deb
    check_files
    configure
    once "cgnetd --once"
    denied "after cgnetd --once"
    echo "# edited" >>/etc/cgnetd/cgnetd.yaml
    keep_calling
    sleep 0.3
    must apt_ install ./new.deb
    must apt_ install --reinstall ./new.deb
    must dpkg --status cgnetd >/dev/null
    once "cgnetd --once after the upgrade"
    must apt_ install --allow-downgrades ./old.deb
    must apt_ install ./new.deb
    end_calling "upgrade, reinstallation, downgrade and upgrade"
    grep -q '^# edited' /etc/cgnetd/cgnetd.yaml || fail "the edited settings were overwritten"
    must script postinst configure "$OLD_VERSION"
    must script postinst configure "$OLD_VERSION"
}

check_remove() {
    say "removal is refused while another process holds the pins"
    flock "$PINS" sleep 60 &
    local holder=$!
    sleep 0.3
    must_not apt_ remove cgnetd
    grep -q 'not removed, for its policies are still in force' /work/apt.log || fail "the refusal is not told"
    kill "$holder"
    wait "$holder" 2>/dev/null || true
    must apt_ install --reinstall ./new.deb
    denied "after a removal that was refused"

    must apt_ remove cgnetd
    free "after the removal"
    [ ! -e "$PINS" ] || fail "the removal left $PINS"
    [ -e /etc/cgnetd/policy.d/deny.yaml ] || fail "the removal took the settings along"
    [ -z "$(find /usr/lib/cgnetd 2>/dev/null)" ] || fail "the removal left $(find /usr/lib/cgnetd)"

    say "removal with settings that cannot be read"
    must apt_ install ./new.deb
    once "cgnetd --once after installing again"
    denied "after installing again"
    echo "no_such_setting: 1" >>/etc/cgnetd/cgnetd.yaml.d/here.yaml
    must apt_ remove cgnetd
    free "after the removal with bad settings"
}

# A chroot sees the pins of its host, whose daemon they belong to.
check_chroot() {
    must apt_ install ./new.deb
    sed -i /no_such_setting/d /etc/cgnetd/cgnetd.yaml.d/here.yaml
    once "cgnetd --once"
    mkdir -p /tmp/other
    mount --rbind / /tmp/other
    must chroot /tmp/other /var/lib/dpkg/info/cgnetd.prerm remove
    denied "after a removal in a chroot"
    umount --recursive --lazy /tmp/other
    must apt_ remove cgnetd
    free "after the removal"
}

inside() {
    root_group=/sys/fs/cgroup/$1
    governed=$root_group/governed
    mkdir -p "$governed"
    apt-get -qq update
    # shellcheck disable=SC2046
    must apt_ satisfy --no-install-recommends "$(dpkg-deb --field new.deb Depends)"
    inventory | sort >/work/before
    check_upgrade
    check_remove
    check_chroot
    must apt_ purge cgnetd
    inventory | sort >/work/after
    diff /work/before /work/after || fail "the purge left what is above"
    say "$(dpkg-deb --field new.deb Package Version | tr '\n' ' ')purged without a trace"
}

cd "${here}"
if [ "${1-}" = --inside ]; then
    inside "$2"
else
    outside "$@"
fi
