#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages that building, testing and the demo need. Does nothing, quickly, when all are there.
#
#   packaging/setup-debian.sh            for all but these:
#   packaging/setup-debian.sh system     for trees of Debian that are booted by their systemd
#   packaging/setup-debian.sh vm         for virtual machines of them
#
# Shows apt's work on a terminal; in a pipe it is silent unless it fails. Mounts nothing, starts nothing: the services
# of packages that it installs are neither started nor enabled.
set -euo pipefail

packages=(
    python3 python3-venv python3-dev gcc libc6-dev make pkg-config # the daemon; systemd-python is built from source
    clang llvm libbpf1 libbpf-dev linux-libc-dev                   # the programs in the kernel, and their loader
    libsystemd-dev ca-certificates                                 # journal and notify; the Python package index
    iproute2 util-linux curl socat bind9-dnsutils                  # clients and namespaces of the demo and the tests
    systemd                                                        # journald of the tests; it need not run

    # What tests/clients takes through redirects, unmodified, and what answers it
    nodejs default-jre-headless hey         # runtimes with name resolution and sockets of their own; hey is pure Go
    openssh-client openssh-server           # ssh, and a private sshd
    redis-tools redis-server                # redis-cli
    postgresql postgresql-client            # psql, and a throwaway cluster
    ngtcp2-client ngtcp2-server openssl     # QUIC
    chromium-headless-shell                 # a browser without a display
    redsocks haproxy squid                  # proxies written for iptables REDIRECT: they ask for SO_ORIGINAL_DST
    nftables                                # what redirects are measured against
    iptables firewalld dbus-daemon          # beside it, what policies are; firewalld speaks on a bus of its own
)
case ${1-} in
"") ;;
system) packages=(debootstrap util-linux) ;;
vm) packages=(debootstrap util-linux e2fsprogs qemu-system-x86) ;;
*)
    echo "setup: nothing is known of '$1'; known are: system, vm" >&2
    exit 2
    ;;
esac

# What these bring; the tests start their own.
services=(
    ssh.service ssh.socket redis-server.service postgresql.service ngtcp2d.service nftables.service
    redsocks.service haproxy.service squid.service firewalld.service
)

if ! command -v dpkg-query >/dev/null; then
    echo "setup: not a Debian system; needed here under their own names: ${packages[*]}" >&2
    exit 0
fi

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ] ||
        # pkg-config and others are also provided by packages of another name
        dpkg-query -W -f '${db:Status-Status} ${Provides}\n' 2>/dev/null | grep -qE "^installed .*\b$1\b"
}

# One query for the usual case: everything is there.
missing=()
status=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${packages[@]}" 2>/dev/null || true)
for package in "${packages[@]}"; do
    grep -qx "$package installed" <<<"$status" || installed "$package" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "setup: missing packages: ${missing[*]}" >&2
    echo "setup: run again as root, or: apt-get install ${missing[*]}" >&2
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
refusal=/usr/sbin/policy-rc.d # asked by the packages' scripts before they start a service
log=$(mktemp)
trap 'rm -f "$log"; [ -z "${refused-}" ] || rm -f "$refusal"' EXIT

known() {
    [ -e "/lib/systemd/system/$1" ] || [ -e "/usr/lib/systemd/system/$1" ]
}
# Services that were here before are left as they are.
fresh=()
for service in "${services[@]}"; do
    known "$service" || fresh+=("$service")
done

install() {
    if [ ! -e "$refusal" ]; then
        refused=yes
        printf '#!/bin/sh\nexit 101\n' >"$refusal"
        chmod 755 "$refusal"
    fi
    apt-get -q update && apt-get -q install -y --no-install-recommends "${missing[@]}" && leave_disabled
}
# The packages' scripts enable them for the next boot.
leave_disabled() {
    local service
    for service in "${fresh[@]}"; do
        ! known "$service" || systemctl --quiet --no-reload disable "$service" || return
    done
}
if [ -t 1 ]; then
    echo "setup: installing ${missing[*]}"
    install
else
    install >"$log" 2>&1 || {
        cat "$log" >&2
        echo "setup: cannot install packages: ${missing[*]}" >&2
        exit 1
    }
fi
