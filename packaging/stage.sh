#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copies what packages are built from into DIR, as it is in the checkout now; never what was built there before.
#
#   packaging/stage.sh DIR
set -euo pipefail
mkdir -p "$1"
to=$(readlink -f "$1")
cd "$(dirname "$(readlink -f "$0")")/.."
git ls-files -z LICENSES MANIFEST.in README.md bpf config daemon docs packaging pyproject.toml setup.py |
    tar --null --files-from - --create | tar -C "$to" --extract
