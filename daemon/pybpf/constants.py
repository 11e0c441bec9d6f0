# SPDX-License-Identifier: Apache-2.0
"""Numbers of the bpf(2) interface that are used here, named as <linux/bpf.h> names them; nothing else."""

from __future__ import annotations

import enum


class MapType(enum.IntEnum):
    HASH = 1
    ARRAY = 2
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13
    SK_STORAGE = 24
    RINGBUF = 27


class ProgType(enum.IntEnum):
    UNSPEC = 0
    SOCKET_FILTER = 1
    SCHED_CLS = 3
    CGROUP_SKB = 8
    CGROUP_SOCK = 9
    SOCK_OPS = 13
    RAW_TRACEPOINT = 17
    CGROUP_SOCK_ADDR = 18
    CGROUP_SOCKOPT = 25
    TRACING = 26
    SYSCALL = 31


class AttachType(enum.IntEnum):
    CGROUP_INET_INGRESS = 0
    CGROUP_INET_EGRESS = 1
    CGROUP_INET_SOCK_CREATE = 2
    CGROUP_SOCK_OPS = 3
    CGROUP_INET4_BIND = 8
    CGROUP_INET6_BIND = 9
    CGROUP_INET4_CONNECT = 10
    CGROUP_INET6_CONNECT = 11
    CGROUP_INET4_POST_BIND = 12
    CGROUP_INET6_POST_BIND = 13
    CGROUP_UDP4_SENDMSG = 14
    CGROUP_UDP6_SENDMSG = 15
    CGROUP_UDP4_RECVMSG = 19
    CGROUP_UDP6_RECVMSG = 20
    CGROUP_GETSOCKOPT = 21
    CGROUP_SETSOCKOPT = 22
    TRACE_RAW_TP = 23
    TRACE_ITER = 28
    CGROUP_INET4_GETPEERNAME = 29
    CGROUP_INET6_GETPEERNAME = 30
    CGROUP_INET4_GETSOCKNAME = 31
    CGROUP_INET6_GETSOCKNAME = 32
    CGROUP_INET_SOCK_RELEASE = 34
    CGROUP_UNIX_CONNECT = 49
    CGROUP_UNIX_SENDMSG = 50
    CGROUP_UNIX_RECVMSG = 51
    CGROUP_UNIX_GETPEERNAME = 52
    CGROUP_UNIX_GETSOCKNAME = 53


class AttachFlag(enum.IntFlag):
    """How a program shares its cgroup and those below with others of its attach type."""

    EXCLUSIVE = 0  # with nobody
    OVERRIDE = 1 << 0  # alone, and it gives way to one below
    MULTI = 1 << 1  # with everybody; links always do


class LinkType(enum.IntEnum):
    RAW_TRACEPOINT = 1
    TRACING = 2
    CGROUP = 3
    ITER = 4


class MapFlag(enum.IntFlag):
    NONE = 0
    NO_PREALLOC = 1 << 0
    RDONLY = 1 << 3
    WRONLY = 1 << 4
    CLONE = 1 << 9
    MMAPABLE = 1 << 10
    INNER_MAP = 1 << 12


class Update(enum.IntEnum):
    """What an update may do to the entry."""

    ANY = 0
    NOEXIST = 1
    EXIST = 2
