# SPDX-License-Identifier: Apache-2.0
"""What the daemon tells the outside world: flow events and messages of its own, with their kinds.

Values only. Must not know where they are sent.
"""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass, field
from typing import Any

from cgnetd.service.clock import rfc3339


class Priority(enum.IntEnum):
    """syslog's levels, as journald counts them."""

    ERR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6


class Kind(enum.Enum):
    """Kinds of records: name, journald's MESSAGE_ID (never to be changed), priority."""

    DENY = ("deny", "2f62bded8716435789b3c04a0f5e5e60", Priority.NOTICE)
    SHADOW_DENY = ("shadow-deny", "8d4e3ad9beea4329b2639992d0dea844", Priority.NOTICE)
    ALLOW = ("allow", "80bcfab961dd4c489f69f0b426d7290a", Priority.INFO)
    POLICY_LOADED = ("policy-loaded", "0cd110a02e364749b79a768c0c70a9bc", Priority.INFO)
    POLICY_REJECTED = ("policy-rejected", "6a085e9637a845bea005c87ad7d94a54", Priority.ERR)
    DRIFT_REPAIRED = ("drift-repaired", "80f8c42d22004e18beeae89540314c94", Priority.WARNING)
    EVENTS_LOST = ("events-lost", "9284de5f4592410788122d3b77668614", Priority.WARNING)
    DEGRADED = ("degraded", "dfe565e5cc884c6eac5d92d8274a120d", Priority.WARNING)
    RECONCILE_FAILED = ("reconcile-failed", "2d5f6d0b235d4423a229c4f9c4c42f65", Priority.ERR)
    STARTED = ("started", "beb4c7887c0e48c49ad625bcd25ce0af", Priority.INFO)
    STOPPED = ("stopped", "71ea3737d19a4d8d950d0e9f5033e334", Priority.INFO)
    FLUSHED = ("flushed", "e3538b28bb19445d8ae11ae7b1428362", Priority.NOTICE)
    NOT_ENFORCING = ("not-enforcing", "212e012d8a2d478685c4c58ff106e009", Priority.WARNING)
    LABEL_FAILED = ("label-failed", "2898f2704e424288abb8ff59db915c71", Priority.WARNING)

    def __init__(self, label: str, message_id: str, priority: Priority) -> None:
        self.label = label
        self.message_id = message_id
        self.priority = priority


@dataclass(frozen=True, slots=True)
class RuleName:
    """The rule that decided. `policy` "" for a built-in one, which has no place in a file either."""

    policy: str
    rule: str
    file: str
    line: int

    def __str__(self) -> str:
        if not self.policy:
            return f"built-in rule {self.rule}"
        return f"policy {self.policy} rule {self.rule} ({self.file}:{self.line})"


@dataclass(frozen=True, slots=True)
class FlowEvent:
    """Calls of one kind from one cgroup to one place, decided by one rule. Times are nanoseconds since 1970.

    Addresses are text, "" where the hook has none; ports 0 where the hook has none. `errno` is the name that the call
    got, "" if it went on. `collected`: many destinations in one, for want of room; the address is empty then.
    """

    time_ns: int
    denied: bool
    shadow_denied: bool
    hook: str
    protocol: str
    family: int  # 4 or 6
    local_address: str
    local_port: int
    remote_address: str
    remote_port: int
    errno: str
    rule: RuleName
    shadow_rule: RuleName
    generation: int
    cgroup_id: int
    cgroup: str  # path below the root the daemon was given, "" if the cgroup is gone
    unit: str
    user_unit: str
    decided_by: str  # "task" or "socket": whose cgroup it is
    pid: int
    comm: str
    uid: int
    count: int
    first_ns: int
    last_ns: int
    collected: bool = False

    @property
    def kind(self) -> Kind:
        if self.denied:
            return Kind.DENY
        return Kind.SHADOW_DENY if self.shadow_denied else Kind.ALLOW

    @property
    def place(self) -> str:
        """What was asked for, as text."""
        if self.collected:
            return "many destinations"
        if self.remote_address:
            return _join(self.remote_address, self.remote_port)
        return _join(self.local_address, self.local_port) if self.local_address else ""

    def sentence(self) -> str:
        done = {Kind.DENY: "denied", Kind.SHADOW_DENY: "would deny", Kind.ALLOW: "allowed"}[self.kind]
        who = self.user_unit or self.unit or self.cgroup or f"cgroup {self.cgroup_id}"
        what = " ".join(word for word in (self.hook, self.protocol, self.place) if word)
        errno = f" ({self.errno})" if self.errno else ""
        rule = self.shadow_rule if self.kind is Kind.SHADOW_DENY else self.rule
        times = f", {self.count} times" if self.count > 1 else ""
        return f"{done} {who} {what}{errno} by {rule}{times}"

    def to_json(self) -> dict[str, Any]:
        """The event as `docs/events.md` describes it."""
        record = asdict(self)
        for name in ("time_ns", "first_ns", "last_ns", "denied", "shadow_denied", "rule", "shadow_rule"):
            del record[name]
        return {
            "type": "flow",
            "time": rfc3339(self.time_ns),
            "verdict": _verdict(self.denied),
            "shadow_verdict": _verdict(self.shadow_denied),
            **record,
            **asdict(self.rule),
            **{f"shadow_{name}": value for name, value in asdict(self.shadow_rule).items()},
            "first_seen": rfc3339(self.first_ns),
            "last_seen": rfc3339(self.last_ns),
        }


@dataclass(frozen=True, slots=True)
class Message:
    """Something that happened to the daemon itself."""

    kind: Kind
    time_ns: int
    text: str  # one line for people
    fields: dict[str, Any] = field(default_factory=dict)  # JSON values

    def sentence(self) -> str:
        return self.text

    def to_json(self) -> dict[str, Any]:
        return {"type": self.kind.label, "time": rfc3339(self.time_ns), "message": self.text, **self.fields}


Record = FlowEvent | Message


def _verdict(denied: bool) -> str:
    return "deny" if denied else "allow"


def _join(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
