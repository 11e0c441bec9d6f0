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
ABI_VERSION: Final = 6

SLOTS: Final = 2
CHAIN_MAX: Final = 26
NAME_MAX: Final = 256
BLOCK_CELLS: Final = 8192
BISECT_STEPS: Final = 24

HOOK_CONNECT: Final = 0
HOOK_SENDMSG: Final = 1
HOOK_BIND: Final = 2
HOOK_POST_BIND: Final = 3
HOOK_SOCKET: Final = 4
HOOK_CREATE: Final = 5

FAMILY_UNIX: Final = 1
FAMILY_V4: Final = 4
FAMILY_V6: Final = 6
UNIX_NAME_MAX: Final = 108
UNIX_NAME_BYTES: Final = 112

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
DIR_TABLES: Final = 2
DIR_SOCKET: Final = 2
DIR_UNIX: Final = 3
DIR_COUNT: Final = 4
EGRESS_CONTEXTS: Final = 12
BIND_CONTEXTS: Final = 6
SOCKET_CONTEXTS: Final = 8

TYPE_STREAM: Final = 0
TYPE_DGRAM: Final = 1
TYPE_RAW: Final = 2
TYPE_OTHER: Final = 3
TYPE_COUNT: Final = 4

ACTION_INVALID: Final = 0
ACTION_ALLOW: Final = 1
ACTION_DENY: Final = 2
ACTION_PASS: Final = 3
ACTION_REWRITE: Final = 4

IMAGE_MAGIC: Final = 0
IMAGE_COUNTS: Final = 1
IMAGE_DEFAULT: Final = 2
IMAGE_RULES: Final = 3
IMAGE_STATES: Final = 4
IMAGE_SIZE: Final = 5
IMAGE_EFFECTS: Final = 6
IMAGE_SERVICES: Final = 7
IMAGE_HEADER: Final = 8

POLICY_CELLS: Final = 32
POLICY_BASE: Final = 0
POLICY_FLAGS: Final = 1
POLICY_V4: Final = 2
POLICY_V6: Final = 4
POLICY_ROWS: Final = 6
POLICY_OPAQUE: Final = 8
POLICY_DEFAULTS: Final = 15
POLICY_SOCKET: Final = 16
POLICY_NAMES: Final = 24
POLICY_NAMES_UNSURE: Final = 25
POLICY_TCP: Final = 26
POLICY_CONGESTION: Final = 27
POLICY_COLUMNS: Final = 29

POLICY_AUDIT: Final = 1 << 0
POLICY_EGRESS: Final = 1 << 1
POLICY_BIND: Final = 1 << 2
POLICY_NEW_SOCKET: Final = 1 << 3
POLICY_UNIX: Final = 1 << 4
POLICY_TUNES_TCP: Final = 1 << 5

TIER_ADMIN: Final = 0
TIER_NORMAL: Final = 1
TIER_BASELINE: Final = 2

NODE_INDEX: Final = 0x80000000
NODE_DENSE: Final = 0x40000000
NODE_SPANS: Final = 0x20000000
NODE_SHIFT: Final = 24
DENSE_SHIFT: Final = 16
TABLE_KEY_BITS: Final = 39
TABLE_STEP: Final = 0x1000000
TABLE_MORE: Final = 0x800000
TABLE_SKIP: Final = 24
TABLE_LISTS: Final = 4
TABLE_INDEXES: Final = 8

PORTS_RANGE: Final = 0x80000000
PORTS_INDEX: Final = 0x80000000

REF_CORRUPT: Final = 0
REF_NONE: Final = 1
REF_RULE: Final = 2

RULE_DEFAULT: Final = 0
RULE_UNLABELLED: Final = 1
RULE_CORRUPT: Final = 2
RULE_OVERFLOW: Final = 3
RULE_FIRST: Final = 4
RULE_LOG: Final = 1 << 0
RULE_EFFECT: Final = 1 << 1

EFFECT_CELLS: Final = 16
EFFECT_FLAGS: Final = 0
EFFECT_TO_V4: Final = 1
EFFECT_TO_V6: Final = 2
EFFECT_SOURCE_V4: Final = 5
EFFECT_SOURCE_V6: Final = 6
EFFECT_OPTIONS: Final = 9
EFFECT_LINK: Final = 10
EFFECT_NAME: Final = 1

EFFECT_TO4: Final = 1 << 0
EFFECT_TO6: Final = 1 << 1
EFFECT_SERVICE: Final = 1 << 2
EFFECT_SOURCE4: Final = 1 << 3
EFFECT_SOURCE6: Final = 1 << 4
EFFECT_PRIVILEGED: Final = 1 << 5
EFFECT_MARK: Final = 1 << 6
EFFECT_PRIORITY: Final = 1 << 7
EFFECT_DEVICE: Final = 1 << 8
EFFECT_UNIX: Final = 1 << 9

SERVICE_CELLS: Final = 8
SERVICE_FLAGS: Final = 0
SERVICE_KEY: Final = 1
SERVICE_STICKY_NS: Final = 2
SERVICE_V4: Final = 3
SERVICE_V6: Final = 5

CHOICES: Final = 1024
BACKENDS_MAX: Final = 256
BACKEND_CELLS: Final = 4
BACKEND_ADDRESS: Final = 0
BACKEND_PORT: Final = 2
BACKEND_KEY: Final = 3

STATE_CELLS: Final = 2
NAME_STATE_CELLS: Final = 3

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
FLOW_REWRITTEN: Final = 1 << 4
FLOW_SHADOW_REWRITTEN: Final = 1 << 5

REASON_NONE: Final = 0
REASON_NO_BACKEND: Final = 1
REASON_NO_SOURCE: Final = 2
REASON_NO_DEVICE: Final = 3
REASON_NO_MEMORY: Final = 4

CONTROL_VIEWS: Final = 1 << 0

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
    "cgn_control", "active:I generation:2I root_level:I root_id:Q window_ns:Q epoch:I flags:I netns:Q"
)
LABEL_LAYOUT: Final = _layout("cgn_label", "generation:I state:I governing:B excluded:B flags:H policy:26H")
ENTRY_LAYOUT: Final = _layout("cgn_entry", "slot:128s")
FLOW_KEY_LAYOUT: Final = _layout(
    "cgn_flow_key",
    "generation:I rule:I shadow_rule:I protocol:H port:H hook:B family:B flags:B errno_:B reason:B type:B"
    " reserved:H cgroup_id:Q address:2Q",
)
FLOW_VALUE_LAYOUT: Final = _layout(
    "cgn_flow_value",
    "count:Q reported:Q window_start_ns:Q first_ns:Q last_ns:Q task_cgroup_id:Q socket_cgroup_id:Q local_address:2Q"
    " pid:I uid:I local_port:H new_port:H name_length:H reserved:H comm:16s new_address:2Q name:112s",
)
FLOW_RECORD_LAYOUT: Final = _layout("cgn_flow_record", "type:I reserved:I count:Q key:48s value:232s")
CGROUP_RECORD_LAYOUT: Final = _layout("cgn_cgroup_record", "type:I error:i cgroup_id:Q parent_id:Q name:256s")

VIEW_LAYOUT: Final = _layout("cgn_view", "asked:2Q actual:2Q service:Q asked_port:H actual_port:H family:B reserved:3B")
PEERS_LAYOUT: Final = _layout("cgn_peers", "now:48s before:48s")
ORIGIN_LAYOUT: Final = _layout("cgn_origin", "address:2Q port:H family:B reserved:5B")

LAYOUTS: Final = (
    META_LAYOUT,
    CONTROL_LAYOUT,
    LABEL_LAYOUT,
    ENTRY_LAYOUT,
    FLOW_KEY_LAYOUT,
    FLOW_VALUE_LAYOUT,
    FLOW_RECORD_LAYOUT,
    CGROUP_RECORD_LAYOUT,
    VIEW_LAYOUT,
    PEERS_LAYOUT,
    ORIGIN_LAYOUT,
)

META: Final = META_LAYOUT.struct
CONTROL: Final = CONTROL_LAYOUT.struct
LABEL: Final = LABEL_LAYOUT.struct
ENTRY: Final = ENTRY_LAYOUT.struct
FLOW_KEY: Final = FLOW_KEY_LAYOUT.struct
FLOW_VALUE: Final = FLOW_VALUE_LAYOUT.struct
FLOW_RECORD: Final = FLOW_RECORD_LAYOUT.struct
CGROUP_RECORD: Final = CGROUP_RECORD_LAYOUT.struct
VIEW: Final = VIEW_LAYOUT.struct
PEERS: Final = PEERS_LAYOUT.struct
