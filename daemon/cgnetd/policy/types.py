# SPDX-License-Identifier: Apache-2.0
"""The meaning of a policy set, as values: what parsing yields, what `evaluate`, `select` and the compiler read.

Pure. Must not know of YAML, files, bytes in the kernel or clocks.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Action(enum.Enum):
    ALLOW = "allow"
    DENY = "deny"
    PASS = "pass"  # leaves this policy; the next one decides
    REDIRECT = "redirect"  # egress and unix: allowed, but to another destination
    REWRITE = "rewrite"  # bind: allowed, but on another local address

    @property
    def rewrites(self) -> bool:
        """Whether the call is let pass to another address or name than it asked for."""
        return self in (Action.REDIRECT, Action.REWRITE)


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
    CREATE = "create"  # socket() of any kind, by the rules of `socket`


class Protocol(enum.Enum):
    """Protocol classes of the policy language. MPTCP counts as TCP; OTHER is what only `any` matches."""

    TCP = "tcp"
    UDP = "udp"
    UDPLITE = "udplite"
    SCTP = "sctp"
    ICMP = "icmp"
    OTHER = "other"


class SocketType(enum.Enum):
    STREAM = "stream"
    DGRAM = "dgram"
    RAW = "raw"
    OTHER = "other"  # what only a rule without `types` matches


class Section(enum.Enum):
    """The list of a policy that a rule stands in."""

    EGRESS = "egress"
    BIND = "bind"
    SOCKET = "socket"


class Where(NamedTuple):
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

    v4: Sequence[Range] = ()  # a tuple, or packed
    v6: Sequence[Range] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address of `family` 4 or 6 as a host-order integer, and a port; 0 keeps the port that was asked for."""

    family: int
    address: int
    port: int = 0


@dataclass(frozen=True, slots=True)
class Backend:
    endpoint: Endpoint
    weight: int = 1  # 1..100


@dataclass(frozen=True, slots=True)
class Health:
    """TCP connect probes. A backend is dead after `fall` failures in a row, alive again after `rise` successes."""

    interval_ns: int = 2_000_000_000
    timeout_ns: int = 500_000_000
    fall: int = 2
    rise: int = 2
    port: int = 0  # probed; 0: the backend's own, or else the service's first TCP port


@dataclass(frozen=True, slots=True)
class Service:
    """Virtual addresses and the backends behind them. Every family among `addresses` has a backend."""

    name: str
    addresses: tuple[tuple[int, int], ...]  # (family, address), sorted, distinct
    ports: tuple[tuple[Protocol, int], ...]  # (TCP or UDP, port), sorted, distinct
    backends: tuple[Backend, ...]  # distinct endpoints, sorted by endpoint
    where: Where
    sticky_ns: int = 0  # how long a cgroup keeps its backend; 0: every choice is random
    health: Health | None = None
    errno: int = 111  # ECONNREFUSED: what a call gets when no backend is alive
    close_tcp: bool = False  # TCP flows to a dead backend are closed, else they may end by themselves


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where an egress rule sends calls: a target a family, or the backends of a service, or the name of a UNIX socket
    (an abstract one begins with NUL)."""

    v4: Endpoint | None = None
    v6: Endpoint | None = None
    service: Service | None = None
    name: bytes | None = None


@dataclass(frozen=True, slots=True)
class LocalAddresses:
    """A local address a family, None where there is none: what flows leave from, or what a bind() is rewritten to."""

    v4: int | None = None
    v6: int | None = None

    def of(self, family: int) -> int | None:
        return self.v4 if family == 4 else self.v6


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What a bind() is rewritten to; an address or port that is None is kept."""

    addresses: LocalAddresses = LocalAddresses()
    port: int | None = None


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """What is set on each new socket; None is left alone."""

    mark: int | None = None
    priority: int | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True)
class TcpSettings:
    """Tuning of a policy's TCP connections; None is the kernel's own."""

    congestion: str | None = None
    initial_rto_ms: int | None = None
    initial_window: int | None = None  # segments


class Rule(NamedTuple):
    """One rule of a policy. A field that is None was left out and matches everything.

    `addresses` is `to` (or `addresses`) less `except`. `ports` are ranges of 1..65535 (0 is only ever matched by
    `ephemeral` or by a rule without ports). `hooks` is a subset of {CONNECT, SENDMSG}, empty for bind and socket rules.

    An egress rule with `unix` matches calls to UNIX sockets and nothing else; one without it never does. `families` and
    `types` are of socket rules. A rule written with `service:` words is a rule for each service and protocol that it
    names, one behind the other.

    A named tuple, as there are tens of thousands: a frozen data class of so many fields takes twice the time to make.
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
    redirect: Redirect | None = None  # of an egress rule whose action is REDIRECT, never None there
    source: LocalAddresses | None = None  # of an egress rule that allows or redirects
    rewrite: Rewrite | None = None  # of a bind rule whose action is REWRITE, never None there
    privileged: bool = False  # of a bind rule that allows or rewrites: needs no CAP_NET_BIND_SERVICE
    unix: tuple[bytes, ...] | None = None  # globs over names; an abstract one begins with NUL
    families: frozenset[int] | None = None  # 4, 6
    types: frozenset[SocketType] | None = None
    options: SocketOptions | None = None  # of a socket rule that allows


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
    socket: tuple[Rule, ...] = ()
    default_socket: Action = Action.PASS
    tcp: TcpSettings | None = None

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
    services: tuple[Service, ...] = ()  # sorted by name: the index is the service id


@dataclass(frozen=True, slots=True)
class Flow:
    """What a socket call asks for, as the policy sees it.

    `address` is a host-order integer of `family` (4 or 6); an IPv4-mapped address is family 4. Egress: the destination,
    with 0.0.0.0 and :: already turned into what the kernel connects to (loopback). Bind: the wanted local address.
    POST_BIND: `port` is the one the kernel picked. SOCKET: address and port are 0; `raw` says that the socket can send
    any protocol. CREATE: `family` and `type` alone count.
    CONNECT and SENDMSG of a UNIX socket: `family` is 1, `name` is the name as it was given (a leading NUL: abstract),
    and nothing else counts.
    `v6_only` matters for BIND/POST_BIND of [::] alone: if false, it is judged as 0.0.0.0 too.
    """

    hook: Hook
    protocol: Protocol
    family: int
    address: int
    port: int
    v6_only: bool = False
    raw: bool = False
    name: bytes = b""
    type: SocketType = SocketType.STREAM


@dataclass(frozen=True, slots=True)
class Outcome:
    """What decided: a rule, a policy's default (rule None), or the daemon's default_action (policy None too).

    What else happens to the call, beyond `action`, is the rule's (source, privileged, options), but for `target`: where
    a redirected or rewritten call goes, with the port filled in. None where the redirect is to a UNIX name.
    """

    action: Action  # ALLOW, DENY, REDIRECT or REWRITE
    errno: int = 0  # of a deny, positive
    policy: Policy | None = None
    rule: Rule | None = None
    target: Endpoint | None = None


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
