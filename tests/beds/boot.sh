#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Turns this process, the first of its process namespace, into the service manager of a machine. It has namespaces of its own for
# mounts, processes, host name, IPC, network and cgroups: nothing of it is left when it dies.
# usage: boot.sh DIRECTORY LOWER CONSOLE
# DIRECTORY: empty. LOWER: trees, topmost first, separated by colons; they stay as they are. CONSOLE: a file for what would be
# on the screen.
set -eu
directory=$1 lower=$2 console=$3

mount -t tmpfs -o mode=0755 tmpfs "$directory"
mkdir "$directory/upper" "$directory/work" "$directory/root"
root=$directory/root
mount -t overlay -o "lowerdir=$lower,upperdir=$directory/upper,workdir=$directory/work" beds "$root"

# What belongs to the kernel as a whole is only to be read: no sysctl of the host is set, no device of it is triggered.
mount -t proc -o nosuid,noexec,nodev proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount --bind "$root/proc/sys/net" "$root/proc/sys/net"
mount -o remount,bind,ro "$root/proc/sys"
if [ -e "$root/proc/sysrq-trigger" ]; then
    mount --bind "$root/proc/sysrq-trigger" "$root/proc/sysrq-trigger"
    mount -o remount,bind,ro "$root/proc/sysrq-trigger"
fi
mount -t sysfs -o ro,nosuid,noexec,nodev sysfs "$root/sys"
# The cgroup namespace makes this machine's own cgroup the root of what is mounted here.
mount -t cgroup2 -o nosuid,noexec,nodev cgroup2 "$root/sys/fs/cgroup"
mount -t bpf -o nosuid,noexec,nodev,mode=0700 bpf "$root/sys/fs/bpf"

mount -t tmpfs -o mode=0755,nosuid tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for standard in stdin:0 stdout:1 stderr:2; do
    ln -s "/proc/self/fd/${standard#*:}" "$root/dev/${standard%:*}"
done
for device in null:3 zero:5 full:7 random:8 urandom:9; do
    mknod -m 0666 "$root/dev/${device%:*}" c 1 "${device#*:}"
done
mknod -m 0666 "$root/dev/tty" c 5 0
: > "$root/dev/console"
mount --bind "$console" "$root/dev/console"
mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs "$root/run"

cd "$root"
pivot_root . mnt
umount -l /mnt
# Modules, raw devices, the clock and the kernel's log are the host's.
exec env -i container=bed PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    setpriv --bounding-set -sys_module,-sys_rawio,-sys_time,-syslog,-sys_boot --inh-caps -all \
    /lib/systemd/systemd --show-status=yes --log-target=journal-or-kmsg > /dev/console 2>&1 < /dev/null
