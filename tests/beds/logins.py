# SPDX-License-Identifier: Apache-2.0
"""What Debian has beside systemd for people to log in: sessions by PAM, and a message bus for each user.

Must not know who logs in.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from beds import trees

_PACKAGES = ("libpam-systemd", "dbus-user-session")
_INSTALL = r"""
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -q install -y --no-install-recommends "$@"
apt-get clean
rm -rf /var/lib/apt/lists/*
"""


def add(root: Path, distro: trees.Distro) -> None:
    """Put it into a directory that becomes a machine's root. BedError."""
    layer = trees.layer(f"{distro.suite}-logins", trees.system(distro), ["/bin/sh", "-ec", _INSTALL, "sh", *_PACKAGES])
    for part in ("etc", "usr"):  # not /var: what dpkg knows is not what else is in that root
        shutil.copytree(layer / part, root / part, symlinks=True, dirs_exist_ok=True)
