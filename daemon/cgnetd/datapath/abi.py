# SPDX-License-Identifier: Apache-2.0
"""The mirror of bpf/include/cgnetd/abi.h: every constant without its CGN_ prefix, and the layout of every struct.

What the numbers mean is written there. tests/unit/test_abi.py compares the two. Must not know of anything else.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from typing import Final

BYTE_ORDER: Final = sys.byteorder

MAGIC: Final = 0x6E676331
ABI_VERSION: Final = 1

SLOTS: Final = 2
CHAIN_MAX: Final = 26
NAME_MAX: Final = 256
BISECT_STEPS: Final = 24

HOOK_CONNECT: Final = 0
HOOK_SENDMSG: Final = 1
HOOK_BIND: Final = 2
HOOK_POST_BIND: Final = 3
HOOK_SOCKET: Final = 4

PROTO_TCP: Final = 0
PROTO_UDP: Final = 1
PROTO_UDPLITE: Final = 2
PROTO_SCTP: Final = 3
PROTO_ICMP: Final = 4
PROTO_OTHER: Final = 5
PROTO_COUNT: Final = 6
OPAQUE_RAW: Final = 6
OPAQUE_COUNT: Final = 7

DIR_EGRESS: Final = 0
DIR_BIND: Final = 1
DIR_COUNT: Final = 2
EGRESS_CONTEXTS: Final = 12
BIND_CONTEXTS: Final = 6

ACTION_INVALID: Final = 0
ACTION_ALLOW: Final = 1
ACTION_DENY: Final = 2
ACTION_PASS: Final = 3

IMAGE_MAGIC: Final = 0
IMAGE_COUNTS: Final = 1
IMAGE_DEFAULT: Final = 2
IMAGE_RULES: Final = 3
IMAGE_STATES: Final = 4
IMAGE_SIZE: Final = 5
IMAGE_HEADER: Final = 8

POLICY_CELLS: Final = 16
POLICY_BASE: Final = 0
POLICY_FLAGS: Final = 1
POLICY_V4: Final = 2
POLICY_V6: Final = 4
POLICY_ROWS: Final = 6
POLICY_OPAQUE: Final = 8
POLICY_DEFAULTS: Final = 15

POLICY_AUDIT: Final = 1 << 0
POLICY_EGRESS: Final = 1 << 1
POLICY_BIND: Final = 1 << 2

TIER_ADMIN: Final = 0
TIER_NORMAL: Final = 1
TIER_BASELINE: Final = 2

REF_CORRUPT: Final = 0
REF_NONE: Final = 1
REF_RULE: Final = 2

RULE_DEFAULT: Final = 0
RULE_UNLABELLED: Final = 1
RULE_CORRUPT: Final = 2
RULE_OVERFLOW: Final = 3
RULE_FIRST: Final = 4
RULE_LOG: Final = 1 << 0

STATE_CELLS: Final = 2

LABEL_OVERFLOW: Final = 1 << 0

COUNT_ENFORCED: Final = 0
COUNT_SHADOW: Final = 1
COUNT_KINDS: Final = 2

STAT_RING_FULL: Final = 0
STAT_LOST: Final = 1
STAT_UNLABELLED: Final = 2
STAT_LABEL_FAILED: Final = 3
STAT_OVERFLOW: Final = 4
STAT_CORRUPT: Final = 5
STAT_COUNT: Final = 6

FLOW_DENIED: Final = 1 << 0
FLOW_SHADOW_DENIED: Final = 1 << 1
FLOW_BY_SOCKET: Final = 1 << 2
FLOW_COLLECTED: Final = 1 << 3

RECORD_FLOW: Final = 1
RECORD_CGROUP: Final = 2


def cell(high: int, low: int) -> int:
    """A cell of two unsigned 32-bit halves, as the header writes them: HI | LO."""
    return high << 32 | low


def hi(value: int) -> int:
    """The upper half of a cell."""
    return value >> 32


def lo(value: int) -> int:
    """The lower half of a cell."""
    return value & 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Layout:
    """A C struct without hidden padding: its name, and its fields as (name, struct format), in host byte order."""

    name: str
    fields: tuple[tuple[str, str], ...]

    @property
    def struct(self) -> struct.Struct:
        return struct.Struct("=" + "".join(code for _, code in self.fields))

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.struct.size

    def offsets(self) -> dict[str, int]:
        """Byte offset of every field."""
        found: dict[str, int] = {}
        position = 0
        for name, code in self.fields:
            found[name] = position
            position += struct.calcsize("=" + code)
        return found


def _layout(name: str, fields: str) -> Layout:
    parts = (field.split(":") for field in fields.split())
    return Layout(name, tuple((field, code) for field, code in parts))


META_LAYOUT: Final = _layout("cgn_meta", "magic:I abi:I created_ns:Q version:48s")
CONTROL_LAYOUT: Final = _layout(
    "cgn_control", "active:I generation:2I root_level:I root_id:Q window_ns:Q epoch:I reserved:I"
)
LABEL_LAYOUT: Final = _layout("cgn_label", "generation:I state:I governing:B excluded:B flags:H policy:26H")
ENTRY_LAYOUT: Final = _layout("cgn_entry", "slot:128s")
FLOW_KEY_LAYOUT: Final = _layout(
    "cgn_flow_key",
    "generation:I rule:I shadow_rule:I protocol:H port:H hook:B family:B flags:B errno_:B reserved:I"
    " cgroup_id:Q address:2Q",
)
FLOW_VALUE_LAYOUT: Final = _layout(
    "cgn_flow_value",
    "count:Q reported:Q window_start_ns:Q first_ns:Q last_ns:Q task_cgroup_id:Q socket_cgroup_id:Q local_address:2Q"
    " pid:I uid:I local_port:H reserved:3H comm:16s",
)
FLOW_RECORD_LAYOUT: Final = _layout("cgn_flow_record", "type:I reserved:I count:Q key:48s value:104s")
CGROUP_RECORD_LAYOUT: Final = _layout("cgn_cgroup_record", "type:I error:i cgroup_id:Q parent_id:Q name:256s")

LAYOUTS: Final = (
    META_LAYOUT,
    CONTROL_LAYOUT,
    LABEL_LAYOUT,
    ENTRY_LAYOUT,
    FLOW_KEY_LAYOUT,
    FLOW_VALUE_LAYOUT,
    FLOW_RECORD_LAYOUT,
    CGROUP_RECORD_LAYOUT,
)

META: Final = META_LAYOUT.struct
CONTROL: Final = CONTROL_LAYOUT.struct
LABEL: Final = LABEL_LAYOUT.struct
ENTRY: Final = ENTRY_LAYOUT.struct
FLOW_KEY: Final = FLOW_KEY_LAYOUT.struct
FLOW_VALUE: Final = FLOW_VALUE_LAYOUT.struct
FLOW_RECORD: Final = FLOW_RECORD_LAYOUT.struct
CGROUP_RECORD: Final = CGROUP_RECORD_LAYOUT.struct
