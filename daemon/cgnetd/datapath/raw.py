# SPDX-License-Identifier: Apache-2.0
"""Flows as the kernel wrote them, not taken apart yet: what a storm of them is summed up by, at little cost.

Must not know names, nor how many flows are too many.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from cgnetd.datapath import abi

_HEAD: Final = struct.Struct("=II16xQ16x")  # generation, rule and cgroup_id of struct cgn_flow_key
_TIMES: Final = struct.Struct("=QQ")  # first_ns and last_ns of struct cgn_flow_value
_TIMES_AT: Final = abi.FLOW_VALUE_LAYOUT.offsets()["first_ns"]
_TIMES_END: Final = _TIMES_AT + _TIMES.size
_AT: Final = abi.FLOW_KEY_LAYOUT.offsets()
_PORT_AT, _PORT_END, _FLAGS_AT, _ADDRESS_AT = _AT["port"], _AT["hook"], _AT["flags"], _AT["address"]
_NO_PORT: Final = bytes(_PORT_END - _PORT_AT)
_NO_ADDRESS: Final = bytes(abi.FLOW_KEY.size - _ADDRESS_AT)


class FlowHead(NamedTuple):
    """Who decided about whom."""

    generation: int
    rule_id: int
    cgroup_id: int


class RawFlow(NamedTuple):
    """So many calls: bytes of struct cgn_flow_key and struct cgn_flow_value."""

    calls: int
    key: bytes
    value: bytes

    @property
    def head(self) -> FlowHead:
        return FlowHead(*_HEAD.unpack(self.key))

    @property
    def crowd(self) -> bytes:
        """What flows have in common that differ in where the calls went, when, and which process made them: the key of
        the flow that collects them."""
        key = self.key
        flags = key[_FLAGS_AT] | abi.FLOW_COLLECTED
        return (
            key[:_PORT_AT]
            + _NO_PORT
            + key[_PORT_END:_FLAGS_AT]
            + bytes((flags,))
            + key[_FLAGS_AT + 1 : _ADDRESS_AT]
            + _NO_ADDRESS
        )

    def with_later(self, later: RawFlow) -> RawFlow:
        """Both in one, collected unless they went to one place; what belongs to one call is the later one's."""
        first_ns, last_ns = _TIMES.unpack_from(self.value, _TIMES_AT)
        later_first_ns, later_last_ns = _TIMES.unpack_from(later.value, _TIMES_AT)
        # Two calls at once may leave no first time: then both were last.
        first_ns = min(first_ns or last_ns, later_first_ns or later_last_ns)
        times = _TIMES.pack(first_ns, max(last_ns, later_last_ns))
        value = later.value[:_TIMES_AT] + times + later.value[_TIMES_END:]
        return RawFlow(self.calls + later.calls, self.key if self.key == later.key else self.crowd, value)


def raw_flow(data: bytes) -> RawFlow | None:
    """The flow of a record of the ring; None if that is of another type, or cut short."""
    if len(data) < abi.FLOW_RECORD.size:
        return None
    kind, _, calls, key, value = abi.FLOW_RECORD.unpack_from(data)
    return RawFlow(calls, key, value) if kind == abi.RECORD_FLOW else None
