# SPDX-License-Identifier: Apache-2.0
"""libbpf for Python: ctypes on libbpf.so.1 (1.1 or later), names as libbpf has them. Knows nothing of its users."""

from pybpf.constants import AttachFlag, AttachType, LinkType, MapFlag, MapType, ProgType, Update
from pybpf.errors import BpfError
from pybpf.fd import BpfFd, obj_get, pinned_kind
from pybpf.ids import link_ids, program_ids
from pybpf.info import LinkInfo, MapInfo, ProgInfo
from pybpf.lib import possible_cpus, version
from pybpf.link import Link
from pybpf.map import Map
from pybpf.mapping import Mapping
from pybpf.object import Object, ObjectMap, ObjectProgram
from pybpf.program import Program, TestRun, instruction
from pybpf.query import Attached, cgroup_attached, cgroup_programs, effective_programs
from pybpf.ringbuf import RingBuffer

__all__ = [
    "AttachFlag",
    "AttachType",
    "Attached",
    "BpfError",
    "BpfFd",
    "Link",
    "LinkInfo",
    "LinkType",
    "Map",
    "MapFlag",
    "MapInfo",
    "MapType",
    "Mapping",
    "Object",
    "ObjectMap",
    "ObjectProgram",
    "ProgInfo",
    "ProgType",
    "Program",
    "RingBuffer",
    "TestRun",
    "Update",
    "cgroup_attached",
    "cgroup_programs",
    "effective_programs",
    "instruction",
    "link_ids",
    "obj_get",
    "pinned_kind",
    "possible_cpus",
    "program_ids",
    "version",
]
