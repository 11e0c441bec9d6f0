#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs a command as root of a tree, with what building needs of this host: /proc, /dev, /sys, names, certificates. Called in a
# mount namespace of its own: all mounts are gone with the command.
# usage: within.sh DIRECTORY LOWER UPPER WORK COMMAND...
# DIRECTORY: empty, mounted over. LOWER: trees, topmost first, separated by colons; they stay as they are. UPPER: gets the
# changes. WORK: empty, of the overlay.
set -eu
directory=$1
mount -t overlay -o "lowerdir=$2,upperdir=$3,workdir=$4" beds "$directory"
shift 4
for kept in proc sys dev; do
    mount --rbind "/$kept" "$directory/$kept"
done
mount -t tmpfs tmpfs "$directory/tmp"
mount -t tmpfs -o mode=0755 tmpfs "$directory/run"
for kept in /etc/resolv.conf /etc/hosts /etc/ssl/certs; do
    if [ -e "$kept" ] && [ -e "$directory$kept" ]; then
        mount --bind -o ro "$kept" "$directory$kept"
    fi
done
# What the caller gives along, in BED_INPUT: a directory.
if [ -n "${BED_INPUT-}" ]; then
    mkdir "$directory/run/input"
    mount --bind -o ro "$BED_INPUT" "$directory/run/input"
fi
exec chroot "$directory" "$@"
