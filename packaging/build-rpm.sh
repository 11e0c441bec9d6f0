#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the rpm of this checkout into dist/. On a system whose packages are not rpms, what it needs is not looked up:
# the spec has the names of Fedora.
#
#   packaging/build-rpm.sh
#   packaging/build-rpm.sh --staged DIR     # of what stage.sh copied, into DIR
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
checkout=$(dirname "$here")
command -v rpmbuild >/dev/null || {
    echo "build-rpm: no rpmbuild; install it: apt-get install rpm, or dnf install rpm-build" >&2
    exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

build() {
    local version options=() to=$2
    version=$(sed -n 's/^Version: *//p' "$1/packaging/rpm/cgnetd.spec")
    mkdir -p "$work"/{SOURCES,BUILD} "$to"
    tar -C "$(dirname "$1")" --transform "s,^$(basename "$1"),cgnetd-$version," -czf "$work/SOURCES/cgnetd-$version.tar.gz" \
        "$(basename "$1")"
    command -v dpkg-query >/dev/null && options+=(--nodeps --define '_docdir /usr/share/doc')
    rpmbuild -bb --define "_topdir $work" "${options[@]}" "$1/packaging/rpm/cgnetd.spec"
    cp "$work"/RPMS/*/cgnetd-*.rpm "$to/"
}

if [ "${1-}" = --staged ]; then
    build "$checkout" "$2"
else
    "$here/stage.sh" "$work/cgnetd"
    build "$work/cgnetd" "$checkout/dist"
    (cd "$checkout" && ls -t dist/cgnetd-*.rpm | head -n 1)
fi
