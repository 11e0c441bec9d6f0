# SPDX-License-Identifier: Apache-2.0
"""What this kernel can do, found by doing it. Must not compare versions.

`bpftool feature probe` of libbpf 1.1 is wrong on new kernels (it does not know their verifier's words), so each probe
here loads a small program or makes a small map.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

from pybpf.btf import KIND_FUNC, KIND_STRUCT, KernelTypes, kernel_types
from pybpf.constants import AttachType, MapFlag, MapType, ProgType
from pybpf.errors import BpfError
from pybpf.map import Map
from pybpf.program import Program, instruction

# struct bpf_insn codes
_LOAD_U64 = 0x79
_STORE_IMMEDIATE_U64 = 0x7A
_MOVE_REGISTER = 0xBF
_ADD_IMMEDIATE = 0x07
_MOVE_IMMEDIATE = 0xB7
_JUMP_EQUAL = 0x15
_CALL = 0x85
_EXIT = 0x95
_KFUNC = 2  # BPF_PSEUDO_KFUNC_CALL, in the source register of a call

_HELPER_SET_RETVAL = 187
_SOCK_ADDR_SK_OFFSET = 64  # offsetof(struct bpf_sock_addr, sk)
_ITER_UDP_SK_OFFSET = 8  # offsetof(struct bpf_iter__udp, udp_sk)
_UNIX = (
    AttachType.CGROUP_UNIX_CONNECT,
    AttachType.CGROUP_UNIX_SENDMSG,
    AttachType.CGROUP_UNIX_RECVMSG,
    AttachType.CGROUP_UNIX_GETPEERNAME,
)

_PRIVILEGE = (errno.EPERM,)  # the verifier's refusals are EINVAL and EACCES


def _loads(kind: ProgType, instructions: Sequence[bytes], attach_type: int, attach_btf_id: int = 0) -> bool:
    try:
        Program.from_instructions(kind, instructions, attach_type=attach_type, attach_btf_id=attach_btf_id).close()
    except BpfError as error:
        if error.errno in _PRIVILEGE:
            raise
        return False
    return True


def _creates(kind: MapType, key_size: int, value_size: int, entries: int, flags: MapFlag = MapFlag.NONE) -> bool:
    try:
        Map.create(kind, "probe", key_size=key_size, value_size=value_size, max_entries=entries, flags=flags).close()
    except BpfError as error:
        if error.errno in _PRIVILEGE:
            raise
        return False
    return True


def has_set_retval() -> bool:
    """bpf_set_retval in programs of socket addresses (Linux 5.18). BpfError EPERM without privilege, as all probes."""
    code = [
        instruction(_MOVE_IMMEDIATE, 1, immediate=-1),
        instruction(_CALL, immediate=_HELPER_SET_RETVAL),
        instruction(_MOVE_IMMEDIATE, 0, immediate=1),
        instruction(_EXIT),
    ]
    return _loads(ProgType.CGROUP_SOCK_ADDR, code, AttachType.CGROUP_INET4_CONNECT)


def has_rdonly_cast() -> bool:
    """bpf_rdonly_cast of a socket in programs of socket addresses (Linux 6.2)."""
    return _with_types(_casts)


def _with_types(tried: Callable[[KernelTypes], bool]) -> bool:
    """Whether something works that needs the kernel's types; False if it does not tell them."""
    try:
        with kernel_types() as types:
            return tried(types)
    except BpfError as error:
        if error.errno in _PRIVILEGE:
            raise
        return False


def _casts(types: KernelTypes) -> bool:
    kfunc, sock = types.find("bpf_rdonly_cast", KIND_FUNC), types.find("sock", KIND_STRUCT)
    if kfunc is None or sock is None:
        return False
    code = [
        instruction(_LOAD_U64, 1, 1, _SOCK_ADDR_SK_OFFSET),
        instruction(_JUMP_EQUAL, 1, offset=3),
        instruction(_MOVE_IMMEDIATE, 2, immediate=sock),
        instruction(_CALL, src=_KFUNC, immediate=kfunc),
        instruction(_LOAD_U64, 1, 0, 0),
        instruction(_MOVE_IMMEDIATE, 0, immediate=1),
        instruction(_EXIT),
    ]
    return _loads(ProgType.CGROUP_SOCK_ADDR, code, AttachType.CGROUP_INET4_CONNECT)


def _runs_at(kind: ProgType, attach_type: AttachType) -> bool:
    """Whether a program that allows everything loads for a hook."""
    return _loads(kind, [instruction(_MOVE_IMMEDIATE, 0, immediate=1), instruction(_EXIT)], attach_type)


def has_sock_addr() -> bool:
    """Programs on connect, bind and sendmsg at all."""
    return _runs_at(ProgType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_CONNECT)


def has_sock_ops() -> bool:
    """Programs on what happens to TCP connections (Linux 4.13)."""
    return _runs_at(ProgType.SOCK_OPS, AttachType.CGROUP_SOCK_OPS)


def has_getsockopt() -> bool:
    """Programs on getsockopt() (Linux 5.3)."""
    return _runs_at(ProgType.CGROUP_SOCKOPT, AttachType.CGROUP_GETSOCKOPT)


def has_unix_hooks() -> bool:
    """Programs on the addresses of UNIX sockets, which may set them (Linux 6.7)."""
    return all(_runs_at(ProgType.CGROUP_SOCK_ADDR, attach_type) for attach_type in _UNIX) and _with_types(_sets_path)


def _sets_path(types: KernelTypes) -> bool:
    cast, setter = types.find("bpf_cast_to_kern_ctx", KIND_FUNC), types.find("bpf_sock_addr_set_sun_path", KIND_FUNC)
    if cast is None or setter is None:
        return False
    code = [
        instruction(_CALL, src=_KFUNC, immediate=cast),
        instruction(_MOVE_REGISTER, 1, 0),
        instruction(_STORE_IMMEDIATE_U64, 10, offset=-8),
        instruction(_MOVE_REGISTER, 2, 10),
        instruction(_ADD_IMMEDIATE, 2, immediate=-8),
        instruction(_MOVE_IMMEDIATE, 3, immediate=8),
        instruction(_CALL, src=_KFUNC, immediate=setter),
        instruction(_MOVE_IMMEDIATE, 0, immediate=1),
        instruction(_EXIT),
    ]
    return _loads(ProgType.CGROUP_SOCK_ADDR, code, AttachType.CGROUP_UNIX_CONNECT)


def has_sock_destroy() -> bool:
    """bpf_sock_destroy in iterators over sockets (Linux 6.5)."""
    return _with_types(_destroys)


def _destroys(types: KernelTypes) -> bool:
    destroy, iterator = types.find("bpf_sock_destroy", KIND_FUNC), types.find("bpf_iter_udp", KIND_FUNC)
    if destroy is None or iterator is None:
        return False
    code = [
        instruction(_LOAD_U64, 1, 1, _ITER_UDP_SK_OFFSET),
        instruction(_JUMP_EQUAL, 1, offset=1),
        instruction(_CALL, src=_KFUNC, immediate=destroy),
        instruction(_MOVE_IMMEDIATE, 0, immediate=0),
        instruction(_EXIT),
    ]
    return _loads(ProgType.TRACING, code, AttachType.TRACE_ITER, iterator)


def has_ringbuf() -> bool:
    """Ring buffers (Linux 5.8)."""
    return _creates(MapType.RINGBUF, 0, 0, 1 << 16)


def has_sk_storage() -> bool:
    """Storage in sockets (Linux 5.2)."""
    return _creates(MapType.SK_STORAGE, 4, 8, 0, MapFlag.NO_PREALLOC)


def has_inner_map() -> bool:
    """Inner arrays of different sizes in one map of maps (Linux 5.10)."""
    return _creates(MapType.ARRAY, 4, 8, 1, MapFlag.MMAPABLE | MapFlag.INNER_MAP)


def has_btf() -> bool:
    """The kernel's own types (CONFIG_DEBUG_INFO_BTF)."""
    return _with_types(lambda _: True)
