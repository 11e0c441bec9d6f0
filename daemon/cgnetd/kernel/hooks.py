# SPDX-License-Identifier: Apache-2.0
"""Where each program belongs. The key of the table is the name of the program and of its pin below `links/`.

Must not know policies. Types are set by number, so that sections unknown to the installed libbpf work too.
"""

from __future__ import annotations

from dataclasses import dataclass

from pybpf import AttachType, ProgType


@dataclass(frozen=True, slots=True)
class Hook:
    name: str
    object: str  # object file without ".bpf.o"
    prog_type: ProgType
    attach_type: AttachType
    tracepoint: str = ""  # of a tp_btf program; attached to the whole kernel, not to the root


def _cgroup(name: str, object_name: str, attach_type: AttachType) -> Hook:
    return Hook(name, object_name, _PROG_TYPES.get(attach_type, ProgType.CGROUP_SOCK_ADDR), attach_type)


_PROG_TYPES = {
    AttachType.CGROUP_INET_SOCK_CREATE: ProgType.CGROUP_SOCK,
    AttachType.CGROUP_INET4_POST_BIND: ProgType.CGROUP_SOCK,
    AttachType.CGROUP_INET6_POST_BIND: ProgType.CGROUP_SOCK,
    AttachType.CGROUP_SOCK_OPS: ProgType.SOCK_OPS,
    AttachType.CGROUP_GETSOCKOPT: ProgType.CGROUP_SOCKOPT,
}

_ALL = (
    # New cgroups are labelled before anything can be judged in them: these two are attached first.
    Hook("cgroup_mkdir", "cgroup", ProgType.TRACING, AttachType.TRACE_RAW_TP, "cgroup_mkdir"),
    Hook("cgroup_rmdir", "cgroup", ProgType.TRACING, AttachType.TRACE_RAW_TP, "cgroup_rmdir"),
    # What gives rewritten sockets their view back is attached before anything rewrites.
    _cgroup("getpeername4", "view", AttachType.CGROUP_INET4_GETPEERNAME),
    _cgroup("getpeername6", "view", AttachType.CGROUP_INET6_GETPEERNAME),
    _cgroup("getsockname4", "view", AttachType.CGROUP_INET4_GETSOCKNAME),
    _cgroup("getsockname6", "view", AttachType.CGROUP_INET6_GETSOCKNAME),
    _cgroup("recvmsg4", "view", AttachType.CGROUP_UDP4_RECVMSG),
    _cgroup("recvmsg6", "view", AttachType.CGROUP_UDP6_RECVMSG),
    _cgroup("sock_ops", "sockops", AttachType.CGROUP_SOCK_OPS),
    _cgroup("getsockopt", "sockopt", AttachType.CGROUP_GETSOCKOPT),
    _cgroup("recvmsg_unix", "unix", AttachType.CGROUP_UNIX_RECVMSG),
    _cgroup("getpeername_unix", "unix", AttachType.CGROUP_UNIX_GETPEERNAME),
    _cgroup("sock_create", "socket", AttachType.CGROUP_INET_SOCK_CREATE),
    _cgroup("connect4", "connect", AttachType.CGROUP_INET4_CONNECT),
    _cgroup("connect6", "connect", AttachType.CGROUP_INET6_CONNECT),
    _cgroup("sendmsg4", "sendmsg", AttachType.CGROUP_UDP4_SENDMSG),
    _cgroup("sendmsg6", "sendmsg", AttachType.CGROUP_UDP6_SENDMSG),
    # A mark left by bind must be judged by post_bind: that one is attached before.
    _cgroup("post_bind4", "bind", AttachType.CGROUP_INET4_POST_BIND),
    _cgroup("post_bind6", "bind", AttachType.CGROUP_INET6_POST_BIND),
    _cgroup("bind4", "bind", AttachType.CGROUP_INET4_BIND),
    _cgroup("bind6", "bind", AttachType.CGROUP_INET6_BIND),
    _cgroup("connect_unix", "unix", AttachType.CGROUP_UNIX_CONNECT),
    _cgroup("sendmsg_unix", "unix", AttachType.CGROUP_UNIX_SENDMSG),
)

HOOKS: dict[str, Hook] = {hook.name: hook for hook in _ALL}
"""In the order of attaching; detaching goes the other way."""
