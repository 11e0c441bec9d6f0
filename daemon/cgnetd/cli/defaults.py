# SPDX-License-Identifier: Apache-2.0
"""What a verb takes from the settings when its command line does not say: read only then, for reading them takes time.

Must not know what the verbs do with it.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from cgnetd.errors import CgnetdError
from cgnetd.service import places

if TYPE_CHECKING:
    from cgnetd.service.settings import Settings


def settings(args: argparse.Namespace) -> Settings:
    """The settings that `--config`, or the file of the system, holds. Raises SettingsError."""
    from cgnetd.service.settings_files import load_settings

    return load_settings(args.config)


def control_socket(args: argparse.Namespace) -> str:
    """Where the daemon listens. Raises SettingsError."""
    if args.control_socket:
        return str(args.control_socket)
    # Importing the settings takes longer than all else that a verb does.
    if args.config is None and not os.path.exists(places.CONFIG) and not os.path.exists(f"{places.CONFIG}.d"):
        return places.CONTROL_SOCKET
    return settings(args).control_socket


def cgroup_root(args: argparse.Namespace) -> str | None:
    """The root of the managed tree, for looking up units; None where no cgroup v2 tree is mounted."""
    from cgnetd.kernel.cgroup import find_root

    named = args.cgroup_root or settings(args).cgroup_root
    if named is not None:
        return os.path.abspath(named)
    try:
        return str(find_root())
    except CgnetdError:
        return None
