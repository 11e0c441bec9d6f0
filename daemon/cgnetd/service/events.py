# SPDX-License-Identifier: Apache-2.0
"""What the daemon tells the outside world: flow events and messages of its own, with their kinds.

Values only. Must not know where they are sent.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, fields
from typing import Any

from cgnetd.service.clock import rfc3339
from cgnetd.service.words import endpoint_text


class Priority(enum.IntEnum):
    """syslog's levels, as journald counts them."""

    ERR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6


class Kind(enum.Enum):
    """Kinds of records: name, journald's MESSAGE_ID (never to be changed), priority, and the fields of a message."""

    DENY = ("deny", "2f62bded8716435789b3c04a0f5e5e60", Priority.NOTICE)
    DENY_BUILTIN = ("deny-builtin", "8fdcca110f8d405daf13d1bd9e203ed4", Priority.NOTICE)
    DENY_UNMET = ("deny-unmet", "2612c4ab5d114c79bc52b83dd03534bc", Priority.NOTICE)
    SHADOW_DENY = ("shadow-deny", "8d4e3ad9beea4329b2639992d0dea844", Priority.NOTICE)
    SHADOW_REDIRECT = ("shadow-redirect", "95da2faaac5f4c999436f375dcf3d522", Priority.NOTICE)
    REDIRECT = ("redirect", "e06620a6e09f420bb39d32985dcbcb26", Priority.INFO)
    ALLOW = ("allow", "80bcfab961dd4c489f69f0b426d7290a", Priority.INFO)
    POLICY_LOADED = (
        "policy-loaded",
        "0cd110a02e364749b79a768c0c70a9bc",
        Priority.INFO,
        "generation adopted policies warnings",
    )
    POLICY_REJECTED = ("policy-rejected", "6a085e9637a845bea005c87ad7d94a54", Priority.ERR, "problems")
    DRIFT_REPAIRED = ("drift-repaired", "80f8c42d22004e18beeae89540314c94", Priority.WARNING, "repaired")
    EVENTS_LOST = ("events-lost", "9284de5f4592410788122d3b77668614", Priority.WARNING, "lost lost_total records error")
    DEGRADED = ("degraded", "dfe565e5cc884c6eac5d92d8274a120d", Priority.WARNING, "problems")
    RECONCILE_FAILED = ("reconcile-failed", "2d5f6d0b235d4423a229c4f9c4c42f65", Priority.ERR, "error")
    STARTED = ("started", "beb4c7887c0e48c49ad625bcd25ce0af", Priority.INFO, "version pid")
    STOPPED = ("stopped", "71ea3737d19a4d8d950d0e9f5033e334", Priority.INFO)
    FLUSHED = ("flushed", "e3538b28bb19445d8ae11ae7b1428362", Priority.NOTICE, "links")
    NOT_ENFORCING = ("not-enforcing", "212e012d8a2d478685c4c58ff106e009", Priority.WARNING, "reasons")
    LABEL_FAILED = ("label-failed", "2898f2704e424288abb8ff59db915c71", Priority.WARNING, "cgroup cgroup_id errno")
    BACKEND_DOWN = (
        "backend-down",
        "07504a92def94a9393167ca46e01c86d",
        Priority.WARNING,
        "service address port error closed",
    )
    BACKEND_UP = ("backend-up", "dc4d60e432d14ffba5b0840b25ae06b1", Priority.NOTICE, "service address port")
    SERVICE_DOWN = ("service-down", "4e4af364d17249d79d340fdeced021ee", Priority.ERR, "service errno")
    FLOWS_CLOSED = ("flows-closed", "67791a75e24646af8252f23ce4add07e", Priority.INFO, "service address port closed")
    DEVICE_MISSING = ("device-missing", "f269e5373ad34bd492377757aa33dcb5", Priority.WARNING, "device")
    DEVICE_FOUND = ("device-found", "3e0099afe3b74cbebe8cb9460279f0b6", Priority.NOTICE, "device")
    SOURCE_MISSING = ("source-missing", "7bb4143fbfa345549f91dc19243280c8", Priority.WARNING, "address")
    SOURCE_FOUND = ("source-found", "5c922348c166456dabfb0470a7e41781", Priority.NOTICE, "address")
    PROBES_FAILED = ("probes-failed", "48a32be13554499093c8419130a2988e", Priority.WARNING, "error")
    PROBES_RESUMED = ("probes-resumed", "9cef382694aa449da677c0f2db8bed51", Priority.NOTICE)
    PINS_LOST = ("pins-lost", "b137658ccc1041d4bd8d689ae8bedcd4", Priority.WARNING, "error")
    SETTINGS_REJECTED = ("settings-rejected", "0385885c1eda4212bd908625672126aa", Priority.ERR, "error")
    SETTINGS_CHANGED = ("settings-changed", "673469ea72ca4e3b946f5dcac0eadc28", Priority.NOTICE, "changed waiting")
    CONFLICT = ("conflict", "d9ddc35e68ab46a08b6d2d5dc86f2a88", Priority.WARNING, "conflicts")
    CONFLICT_ENDED = ("conflict-ended", "4f0c8219d83e45c3881e588f82e15992", Priority.NOTICE, "conflicts")

    def __init__(self, label: str, message_id: str, priority: Priority, fields: str = "") -> None:
        self.label = label
        self.message_id = message_id
        self.priority = priority
        self.fields = frozenset(
            fields.split()
        )  # that a message of this kind may have; flow events have one set for all


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

    Addresses and names are text, "" where the hook has none; ports 0 where the hook has none. `errno` is the name that
    the call got, "" if it went on. `redirected`: it went on to another destination, or was bound to another address,
    which is `new_address` and `new_port`, or for UNIX sockets `new_name`. `reason`: why a call that the rule let pass
    was denied all the same. `collected`: many destinations in one, for want of room; the address is empty then.
    """

    time_ns: int
    denied: bool
    shadow_denied: bool
    hook: str
    protocol: str  # "unix" for UNIX sockets
    family: int  # 4 or 6, 1 for UNIX sockets
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
    redirected: bool = False
    shadow_redirected: bool = False
    new_address: str = ""
    new_port: int = 0
    name: str = ""  # of a UNIX socket, as `unix_name` writes it
    new_name: str = ""
    socket_type: str = ""  # "stream", "dgram", "raw": of a new socket
    reason: str = ""

    @property
    def kind(self) -> Kind:
        facts = (
            (self.denied and bool(self.reason), Kind.DENY_UNMET),
            (self.denied and not self.rule.policy, Kind.DENY_BUILTIN),
            (self.denied, Kind.DENY),
            (self.shadow_denied, Kind.SHADOW_DENY),
            (self.redirected, Kind.REDIRECT),
            (self.shadow_redirected, Kind.SHADOW_REDIRECT),
        )
        return next((kind for true, kind in facts if true), Kind.ALLOW)

    @property
    def place(self) -> str:
        """What was asked for, as text."""
        if self.collected:
            return "many destinations"
        if self.remote_address:
            return endpoint_text(self.remote_address, self.remote_port)
        if self.local_address:
            return endpoint_text(self.local_address, self.local_port)
        return self.name or self.socket_type

    @property
    def new_place(self) -> str:
        """Where a redirected call went, as text; "" if it was not redirected, or many were."""
        return endpoint_text(self.new_address, self.new_port) if self.new_address else self.new_name

    def sentence(self) -> str:
        kind = self.kind
        who = self.user_unit or self.unit or self.cgroup or f"cgroup {self.cgroup_id}"
        what = " ".join(word for word in (self.hook, self.protocol, self.place) if word)
        where = f" to {self.new_place}" if kind is Kind.REDIRECT and self.new_place else ""
        errno = f" ({self.errno})" if self.errno else ""
        reason = f", {self.reason}" if self.reason else ""
        rule = self.shadow_rule if kind in (Kind.SHADOW_DENY, Kind.SHADOW_REDIRECT) else self.rule
        times = f", {self.count} times" if self.count > 1 else ""
        done = "rewrote" if kind is Kind.REDIRECT and self.is_bind else _DONE[kind]
        return f"{done} {who} {what}{where}{errno} by {rule}{reason}{times}"

    def _verdict(self, denied: bool, redirected: bool) -> str:
        if denied or not redirected:
            return "deny" if denied else "allow"
        return "rewrite" if self.is_bind else "redirect"

    @property
    def is_bind(self) -> bool:
        return self.hook in ("bind", "post_bind")

    def to_json(self) -> dict[str, Any]:
        """The event as `docs/events.md` describes it."""
        return {
            "type": "flow",
            "time": rfc3339(self.time_ns),
            "verdict": self._verdict(self.denied, self.redirected),
            "shadow_verdict": self._verdict(self.shadow_denied, self.shadow_redirected),
            **{name: getattr(self, name) for name in _AS_THEY_ARE},
            **{name: getattr(self.rule, name) for name in _OF_RULES},
            **{f"shadow_{name}": getattr(self.shadow_rule, name) for name in _OF_RULES},
            "first_seen": rfc3339(self.first_ns),
            "last_seen": rfc3339(self.last_ns),
        }


_DONE = {
    Kind.DENY: "denied",
    Kind.DENY_BUILTIN: "denied",
    Kind.DENY_UNMET: "denied",
    Kind.SHADOW_DENY: "would deny",
    Kind.REDIRECT: "redirected",
    Kind.SHADOW_REDIRECT: "would redirect",
    Kind.ALLOW: "allowed",
}
_NOT_AS_THEY_ARE = (
    *("time_ns", "first_ns", "last_ns"),
    *("denied", "shadow_denied", "redirected", "shadow_redirected"),
    *("rule", "shadow_rule"),
)
# Not by asdict(), which copies every value: that took four fifths of the time of telling an event.
_AS_THEY_ARE = tuple(one.name for one in fields(FlowEvent) if one.name not in _NOT_AS_THEY_ARE)
_OF_RULES = tuple(one.name for one in fields(RuleName))


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
