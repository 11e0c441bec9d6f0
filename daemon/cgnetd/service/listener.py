# SPDX-License-Identifier: Apache-2.0
"""The control socket in the file system: made safely, replaced only when nobody answers, removed at the end.

Must not know what is spoken on it.
"""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import stat
from types import TracebackType

from cgnetd.errors import CgnetdError, PrivilegeError
from cgnetd.service.peer import peer_of


class Listener:
    """A listening UNIX stream socket at `path`, its directory made with mode 0755 if there is none.

    Mode 0660 for members of `group` too: `gid` is that group. Without one, or with one that it cannot be given to, mode
    0600 for root alone: `gid` is None, and `root_only` says why in words ("" if none was asked for).
    Raises PrivilegeError if that is not permitted, CgnetdError if something else is there or somebody answers there.
    """

    def __init__(self, path: str, group: str | None = None) -> None:
        self.path = path
        self.gid: int | None = None
        self.root_only = ""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._bind(group)
        except PermissionError as error:
            self.socket.close()
            raise PrivilegeError(f"make control socket {path}: {error.strerror}; run cgnetd as root") from error
        except OSError as error:
            self.socket.close()
            raise CgnetdError(f"make control socket {path}: {error.strerror or error}") from error
        except CgnetdError:
            self.socket.close()
            raise
        self._inode = os.lstat(path).st_ino

    def close(self) -> None:
        """Stop listening and remove the socket file, unless another has taken its place."""
        self.socket.close()
        with contextlib.suppress(OSError):
            if os.lstat(self.path).st_ino == self._inode:
                os.unlink(self.path)

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _bind(self, group: str | None) -> None:
        directory = os.path.dirname(os.path.abspath(self.path))
        os.makedirs(directory, mode=0o755, exist_ok=True)
        _remove_stale(self.path)
        # Nobody can connect before it listens, and it listens when owner and mode are right.
        mask = os.umask(0o177)
        try:
            self.socket.bind(self.path)
        finally:
            os.umask(mask)
        if group is not None:
            self._admit(group)
        self.socket.listen(16)

    def _admit(self, group: str) -> None:
        """Let a group in. What keeps us from it is no reason to leave root without a socket."""
        try:
            gid = grp.getgrnam(group).gr_gid
            os.chown(self.path, -1, gid, follow_symlinks=False)
        except KeyError:
            self.root_only = f"there is no group {group}"
            return
        except PermissionError:
            self.root_only = f"it may not be given to group {group}: SupplementaryGroups={group} in the unit permits it"
            return
        os.chmod(self.path, 0o660)
        self.gid = gid


def _remove_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise CgnetdError(f"make control socket {path}: something that is no socket is there; name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except FileNotFoundError:
            return
        pid = peer_of(probe).pid
    raise CgnetdError(f"make control socket {path}: process {pid} answers there; stop it, or set control_socket")
