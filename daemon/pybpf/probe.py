# SPDX-License-Identifier: Apache-2.0
"""What this kernel can do, found by doing it. Must not compare versions.

`bpftool feature probe` of libbpf 1.1 is wrong on new kernels (it does not know their verifier's words), so each probe
here loads a small program or makes a small map.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from pybpf.btf import KIND_FUNC, KIND_STRUCT, KernelTypes, kernel_types
from pybpf.constants import AttachType, MapFlag, MapType, ProgType
from pybpf.errors import BpfError
from pybpf.map import Map
from pybpf.program import Program, instruction

# struct bpf_insn codes
_LOAD_U64 = 0x79
_MOVE_IMMEDIATE = 0xB7
_JUMP_EQUAL = 0x15
_CALL = 0x85
_EXIT = 0x95
_KFUNC = 2  # BPF_PSEUDO_KFUNC_CALL, in the source register of a call

_HELPER_SET_RETVAL = 187
_SOCK_ADDR_SK_OFFSET = 64  # offsetof(struct bpf_sock_addr, sk)

_PRIVILEGE = (errno.EPERM,)  # the verifier's refusals are EINVAL and EACCES


def _loads(kind: ProgType, instructions: Sequence[bytes], attach_type: int) -> bool:
    try:
        Program.from_instructions(kind, instructions, attach_type=attach_type).close()
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
    try:
        with kernel_types() as types:
            return _casts(types)
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


def has_sock_addr() -> bool:
    """Programs on connect, bind and sendmsg at all."""
    code = [instruction(_MOVE_IMMEDIATE, 0, immediate=1), instruction(_EXIT)]
    return _loads(ProgType.CGROUP_SOCK_ADDR, code, AttachType.CGROUP_INET4_CONNECT)


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
    try:
        with kernel_types():
            return True
    except BpfError as error:
        if error.errno in _PRIVILEGE:
            raise
        return False
