# SPDX-License-Identifier: Apache-2.0
"""What the kernel tells of a map, program or link. Must not open, keep or change anything."""

from __future__ import annotations

import ctypes
from ctypes import c_uint8, c_uint32, c_uint64
from dataclasses import dataclass
from typing import ClassVar

from pybpf.fd import read_info

_NAME = ctypes.c_char * 16


class _RawMapInfo(ctypes.Structure):
    _fields_: ClassVar = [
        *((name, c_uint32) for name in ("type", "id", "key_size", "value_size", "max_entries", "map_flags")),
        ("name", _NAME),
        ("rest", c_uint64 * 6),
    ]


class _RawProgInfo(ctypes.Structure):
    _fields_: ClassVar = [
        ("type", c_uint32),
        ("id", c_uint32),
        ("tag", c_uint8 * 8),
        ("jited_prog_len", c_uint32),
        ("xlated_prog_len", c_uint32),
        ("jited_prog_insns", c_uint64),
        ("xlated_prog_insns", c_uint64),
        ("load_time", c_uint64),
        ("created_by_uid", c_uint32),
        ("nr_map_ids", c_uint32),
        ("map_ids", c_uint64),
        ("name", _NAME),
        ("unused", c_uint64 * 14),
        ("run_time_ns", c_uint64),
        ("run_cnt", c_uint64),
        ("recursion_misses", c_uint64),
        ("verified_insns", c_uint32),
        ("attach_btf_obj_id", c_uint32),
        ("attach_btf_id", c_uint32),
        ("pad", c_uint32),
    ]


class _CgroupLink(ctypes.Structure):
    _fields_: ClassVar = [("cgroup_id", c_uint64), ("attach_type", c_uint32)]


class _RawTracepointLink(ctypes.Structure):
    _fields_: ClassVar = [("tp_name", c_uint64), ("tp_name_len", c_uint32)]


class _LinkUnion(ctypes.Union):
    _fields_: ClassVar = [("cgroup", _CgroupLink), ("raw_tracepoint", _RawTracepointLink), ("rest", c_uint64 * 4)]


class _RawLinkInfo(ctypes.Structure):
    _fields_: ClassVar = [("type", c_uint32), ("id", c_uint32), ("prog_id", c_uint32), ("u", _LinkUnion)]


_INSTRUCTION_BYTES = 8
_CGROUP_LINK = 3
_RAW_TRACEPOINT_LINK = 1


@dataclass(frozen=True, slots=True)
class MapInfo:
    id: int
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str  # cut to 15 bytes by the kernel


@dataclass(frozen=True, slots=True)
class ProgInfo:
    id: int
    type: int
    tag: bytes  # of the instructions, before verification, without map addresses
    name: str
    map_ids: tuple[int, ...]
    verified_insns: int
    instructions: int  # after verification, those of its functions with it
    machine_code_bytes: int  # 0: it is interpreted
    load_time_ns: int  # CLOCK_BOOTTIME
    run_time_ns: int
    run_count: int
    uid: int  # of the process that loaded it


@dataclass(frozen=True, slots=True)
class LinkInfo:
    id: int
    type: int
    prog_id: int
    cgroup_id: int = 0  # 0: not a cgroup link, or detached (its cgroup is gone)
    attach_type: int = -1  # of a cgroup link
    tracepoint: str = ""  # of a raw tracepoint link


def map_info(fd: int) -> MapInfo:
    raw = read_info(fd, _RawMapInfo())
    return MapInfo(raw.id, raw.type, raw.key_size, raw.value_size, raw.max_entries, raw.map_flags, raw.name.decode())


def prog_info(fd: int) -> ProgInfo:
    count = read_info(fd, _RawProgInfo()).nr_map_ids
    ids = (c_uint32 * max(count, 1))()
    raw = _RawProgInfo()
    raw.nr_map_ids = count
    raw.map_ids = ctypes.addressof(ids) if count else 0
    read_info(fd, raw)
    return ProgInfo(
        id=raw.id,
        type=raw.type,
        tag=bytes(raw.tag),
        name=raw.name.decode(),
        map_ids=tuple(ids[: min(count, raw.nr_map_ids)]),
        verified_insns=raw.verified_insns,
        instructions=raw.xlated_prog_len // _INSTRUCTION_BYTES,
        machine_code_bytes=raw.jited_prog_len,
        load_time_ns=raw.load_time,
        run_time_ns=raw.run_time_ns,
        run_count=raw.run_cnt,
        uid=raw.created_by_uid,
    )


def link_info(fd: int) -> LinkInfo:
    raw = read_info(fd, _RawLinkInfo())
    if raw.type == _CGROUP_LINK:
        return LinkInfo(raw.id, raw.type, raw.prog_id, raw.u.cgroup.cgroup_id, raw.u.cgroup.attach_type)
    if raw.type == _RAW_TRACEPOINT_LINK:
        return LinkInfo(raw.id, raw.type, raw.prog_id, tracepoint=_tracepoint_name(fd))
    return LinkInfo(raw.id, raw.type, raw.prog_id)


def _tracepoint_name(fd: int) -> str:
    name = ctypes.create_string_buffer(128)
    raw = _RawLinkInfo()
    raw.u.raw_tracepoint.tp_name = ctypes.addressof(name)
    raw.u.raw_tracepoint.tp_name_len = len(name)
    read_info(fd, raw)
    return name.value.decode()
