#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs a command as root in a copy on write of a distribution's tree, in memory: the tree stays as it is, and everything
# that was mounted or started is gone when the command ends, or when this is killed.
#
#   packaging/in-tree.sh DISTRO WORK COMMAND...
#
# DISTRO  a code name; its tree is $CGNETD_BEDS/DISTRO (default: /var/cache/cgnetd-beds), as debootstrap makes it
# WORK    a directory that is at /work in there
#
# The command is process 1 of a process namespace. It has a bpffs of its own, the host's cgroups and the host's network.
set -euo pipefail
distro=$1 work=$(readlink -f "$2")
shift 2
tree=${CGNETD_BEDS:-/var/cache/cgnetd-beds}/$distro
[ -e "$tree/etc/os-release" ] || {
    echo "in-tree: there is no tree of $distro at $tree; make one: debootstrap --variant=minbase $distro $tree" >&2
    exit 1
}
root=$(mktemp -d)
trap 'rmdir "$root"' EXIT

export tree work root
unshare --mount --pid --fork --kill-child --propagation private bash -euc '
    mount -t tmpfs -o mode=755 cgnetd-tree "$root"
    mkdir "$root"/{upper,work,tree}
    mount -t overlay -o "lowerdir=$tree,upperdir=$root/upper,workdir=$root/work" cgnetd-tree "$root/tree"
    cd "$root/tree"
    mount -t proc proc proc
    mount -t sysfs sysfs sys
    mount -t bpf bpf sys/fs/bpf
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    mount --rbind /dev dev
    mount -t tmpfs -o mode=1777 cgnetd-tree tmp
    mount -t tmpfs -o mode=755 cgnetd-tree run
    mkdir -p work
    mount --bind "$work" work
    cp -L /etc/resolv.conf /etc/hosts etc/
    export HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
    exec chroot . sh -c "cd /work && exec \"\$@\"" in-tree "$@"' in-tree "$@"
