# SPDX-License-Identifier: Apache-2.0
"""The meaning of a policy set, as values: what parsing yields, what `evaluate`, `select` and the compiler read.

Pure. Must not know of YAML, files, bytes in the kernel or clocks.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Action(enum.Enum):
    ALLOW = "allow"
    DENY = "deny"
    PASS = "pass"  # leaves this policy; the next one decides


class Tier(enum.IntEnum):
    """Evaluation order of policies; the value sorts."""

    ADMIN = 0
    NORMAL = 1
    BASELINE = 2


class Hook(enum.Enum):
    CONNECT = "connect"
    SENDMSG = "sendmsg"
    BIND = "bind"
    POST_BIND = "post_bind"  # a bind() to port 0, judged again with the port the kernel picked
    SOCKET = "socket"  # socket() of a kind whose later calls no hook sees (UDP-Lite, ping, SCTP, raw, ...)


class Protocol(enum.Enum):
    """Protocol classes of the policy language. MPTCP counts as TCP; OTHER is what only `any` matches."""

    TCP = "tcp"
    UDP = "udp"
    UDPLITE = "udplite"
    SCTP = "sctp"
    ICMP = "icmp"
    OTHER = "other"


class Section(enum.Enum):
    """The list of a policy that a rule stands in."""

    EGRESS = "egress"
    BIND = "bind"


@dataclass(frozen=True, slots=True)
class Where:
    """A place in a file; line and column count from 1."""

    file: str
    line: int
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


Range = tuple[int, int]  # first and last, both included


@dataclass(frozen=True, slots=True)
class AddressRanges:
    """A set of addresses: sorted, disjoint, not touching ranges of host-order integers.

    Instances are shared: rules that name the same words or the same set hold the same object, so identity is a cheap
    first test for equality.
    """

    v4: tuple[Range, ...] = ()
    v6: tuple[Range, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a policy. A field that is None was left out and matches everything.

    `addresses` is `to` (or `addresses`) less `except`. `ports` are ranges of 1..65535 (0 is only ever matched by
    `ephemeral` or by a rule without ports). `hooks` is a subset of {CONNECT, SENDMSG}, empty for bind rules.
    """

    name: str  # as written, or "egress[3]" for the fourth one
    section: Section
    action: Action
    where: Where
    addresses: AddressRanges | None = None
    protocols: frozenset[Protocol] | None = None
    ports: tuple[Range, ...] | None = None
    ephemeral: bool = False  # `ports` holds the word "ephemeral"; ports is () when it holds nothing else
    hooks: frozenset[Hook] = frozenset()
    errno: int = 1  # of a deny, positive
    log: bool = False


class PatternKind(enum.Enum):
    UNIT = "unit"  # name of a cgroup at any depth, not below a user manager
    USER_UNIT = "user-unit"  # name of a cgroup at any depth below a user manager (user@UID.service)
    PATH = "path"  # path below the root


@dataclass(frozen=True, slots=True)
class Pattern:
    """A glob over cgroup names. UNIT and USER_UNIT: one component. PATH: "/a/*/b", "/" alone is the root.

    `*`, `?`, `[abc]`, `[a-z]`, `[!a]` match within one component. In a PATH a component `**` stands for any number of
    components, at the end for one or more: "/a/**" is everything below /a, not /a itself.
    """

    kind: PatternKind
    glob: str


@dataclass(frozen=True, slots=True)
class Subject:
    """The cgroups a policy governs: what `match` matches and all below, less what `exclude` matches and all below."""

    match: tuple[Pattern, ...]
    exclude: tuple[Pattern, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    name: str
    subject: Subject
    where: Where
    description: str = ""
    tier: Tier = Tier.NORMAL
    priority: int = 500
    audit: bool = False  # mode: audit
    egress: tuple[Rule, ...] = ()
    bind: tuple[Rule, ...] = ()
    default_egress: Action = Action.PASS
    default_bind: Action = Action.PASS
    default_where: Where | None = None  # of `spec.default`

    @property
    def order(self) -> tuple[int, int, str]:
        """Sort key of policies at the same depth."""
        return (int(self.tier), self.priority, self.name)


@dataclass(frozen=True, slots=True)
class AddressSet:
    name: str
    ranges: AddressRanges
    where: Where
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicySet:
    """Everything that is in force at once. `policies` is sorted by `Policy.order`: its index is the policy id."""

    policies: tuple[Policy, ...] = ()
    sets: tuple[AddressSet, ...] = ()
    files: tuple[str, ...] = field(default=(), compare=False)  # policy files and set files, to be watched


@dataclass(frozen=True, slots=True)
class Flow:
    """What a socket call asks for, as the policy sees it.

    `address` is a host-order integer of `family` (4 or 6); an IPv4-mapped address is family 4. Egress: the destination,
    with 0.0.0.0 and :: already turned into what the kernel connects to (loopback). Bind: the wanted local address.
    POST_BIND: `port` is the one the kernel picked. SOCKET: address and port are 0; `raw` says that the socket can send
    any protocol.
    `v6_only` matters for BIND/POST_BIND of [::] alone: if false, it is judged as 0.0.0.0 too.
    """

    hook: Hook
    protocol: Protocol
    family: int
    address: int
    port: int
    v6_only: bool = False
    raw: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What decided: a rule, a policy's default (rule None), or the daemon's default_action (policy None too)."""

    action: Action  # ALLOW or DENY
    errno: int = 0  # of a deny, positive
    policy: Policy | None = None
    rule: Rule | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One policy on the way to a decision: the rule that matched (None: none did) and what the policy said."""

    policy: Policy
    rule: Rule | None
    action: Action  # PASS: the walk went on
    audit: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict, the shadow verdict (audit policies taken as enforcing), and the way to them."""

    enforced: Outcome
    shadow: Outcome
    steps: tuple[Step, ...] = ()
