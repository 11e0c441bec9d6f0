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
    kind = ProgType.CGROUP_SOCK if attach_type in _SOCK else ProgType.CGROUP_SOCK_ADDR
    return Hook(name, object_name, kind, attach_type)


_SOCK = (
    AttachType.CGROUP_INET_SOCK_CREATE,
    AttachType.CGROUP_INET4_POST_BIND,
    AttachType.CGROUP_INET6_POST_BIND,
)

_ALL = (
    # New cgroups are labelled before anything can be judged in them: these two are attached first.
    Hook("cgroup_mkdir", "cgroup", ProgType.TRACING, AttachType.TRACE_RAW_TP, "cgroup_mkdir"),
    Hook("cgroup_rmdir", "cgroup", ProgType.TRACING, AttachType.TRACE_RAW_TP, "cgroup_rmdir"),
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
)

HOOKS: dict[str, Hook] = {hook.name: hook for hook in _ALL}
"""In the order of attaching; detaching goes the other way."""
