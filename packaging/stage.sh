#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copies what packages are built from into DIR, as it is in the checkout now; never what was built there before.
#
#   packaging/stage.sh DIR
set -euo pipefail
mkdir -p "$1"
to=$(readlink -f "$1")
cd "$(dirname "$(readlink -f "$0")")/.."
wanted=(LICENSES MANIFEST.in README.md bpf config daemon docs packaging pyproject.toml setup.py)
git ls-files -z --cached --others --exclude-standard "${wanted[@]}" | while IFS= read -r -d '' file; do
    [ ! -e "$file" ] || printf '%s\0' "$file" # removed, and not yet committed
done | tar --null --files-from - --create | tar -C "$to" --extract
