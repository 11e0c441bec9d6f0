# SPDX-License-Identifier: Apache-2.0
"""Random policy sets, cgroup trees and flows for property tests.

Policies are hypothesis strategies (they shrink); flows are drawn from a seeded generator, hundreds for one policy set,
near the edges of its addresses and ports, where mistakes live. Without `rewriting` rules allow, deny and pass, and are
on addresses; with it they also redirect (port kept or not, to services with one backend or several), have sources,
rewrite binds, and there are rules on UNIX sockets and on new sockets, and TCP tuning. Must not know any verdict.
"""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import strategies as st

from cgnetd.policy.matching import UNIX
from cgnetd.policy.types import (
    Action,
    Flow,
    Hook,
    Pattern,
    PatternKind,
    Policy,
    PolicySet,
    Protocol,
    Rule,
    Service,
    SocketType,
    Subject,
    TcpSettings,
    Tier,
)
from support.random_rules import (
    ERRNOS,
    PREFIXES,
    SOCKET_NAMES,
    WHERE,
    bind_rule,
    egress_rule,
    services,
    socket_rule,
    unix_rule,
)

NAMES = ("a", "b", "ab", "a.service", "b.service", "x@1.service", "x@2.service", "c.slice", "user@7.service", "s.scope")
_GLOBS = ("*", "a*", "*.service", "x@*.service", "[ab]", "[!a]", "?", "user@7.service", "c.slice", "a.service")
_PATHS = ("/", "/**", "/a", "/a/**", "/*/b", "/**/b", "/a/**/a.service", "/c.slice/*", "/**/x@?.service/**")
_default = st.sampled_from((Action.ALLOW, Action.DENY, Action.PASS))


_pattern = st.one_of(
    st.builds(Pattern, st.sampled_from([PatternKind.UNIT, PatternKind.USER_UNIT]), st.sampled_from(_GLOBS)),
    st.builds(Pattern, st.just(PatternKind.PATH), st.sampled_from(_PATHS)),
)
_subject = st.builds(
    Subject,
    st.lists(_pattern, min_size=1, max_size=3).map(tuple),
    st.one_of(st.just(()), st.lists(_pattern, min_size=1, max_size=1).map(tuple)),
)
_few = st.integers(0, 3)
_tcp = st.none() | st.builds(
    TcpSettings, st.none() | st.sampled_from(("reno", "cubic")), st.none() | st.just(200), st.none() | st.just(20)
)


@st.composite
def _egress(draw: st.DrawFn, errnos: tuple[int, ...], served: tuple[Service, ...], rewriting: bool) -> tuple[Rule, ...]:
    made = []
    for number in range(draw(st.integers(0, 5))):
        on_names = rewriting and draw(st.integers(0, 2)) == 0
        name = f"egress-{number}"
        made.append(draw(unix_rule(name, errnos) if on_names else egress_rule(name, errnos, served, rewriting)))
    return tuple(made)


@st.composite
def policy_sets(
    draw: st.DrawFn, *, max_policies: int = 6, errnos: tuple[int, ...] = ERRNOS, rewriting: bool = False
) -> PolicySet:
    """A policy set as `parse` would give it: sorted, names unique. `errnos`: those of rules that deny."""
    served = draw(services()) if rewriting else ()
    policies = [
        Policy(
            name=f"p{number}",
            subject=draw(_subject),
            where=WHERE,
            tier=draw(st.sampled_from(Tier)),
            priority=draw(st.sampled_from((0, 500, 1000))),
            audit=draw(st.integers(0, 3)) == 0,
            egress=draw(_egress(errnos, served, rewriting)),
            bind=tuple(draw(bind_rule(f"bind-{n}", errnos, rewriting)) for n in range(draw(st.integers(0, 5)))),
            socket=tuple(draw(socket_rule(f"socket-{n}", errnos)) for n in range(draw(_few) if rewriting else 0)),
            default_egress=draw(_default),
            default_bind=draw(_default),
            default_socket=draw(_default) if rewriting else Action.PASS,
            tcp=draw(_tcp) if rewriting else None,
        )
        for number in range(draw(st.integers(1, max_policies)))
    ]
    return PolicySet(tuple(sorted(policies, key=lambda policy: policy.order)), services=served)


def random_path(source: random.Random, *, depth: int = 4) -> tuple[str, ...]:
    return tuple(source.choice(NAMES) for _ in range(source.randint(0, depth)))


def random_flow(source: random.Random, *, rewriting: bool = False) -> Flow:
    """A flow near the edges of the prefixes and ports that rules are made of; with `rewriting` also of a UNIX socket
    and the making of a socket, and more of the protocols that can be rewritten."""
    if rewriting and source.random() < 0.2:
        return _flow_of_rewriting(source)
    hook = source.choice((Hook.CONNECT, Hook.CONNECT, Hook.SENDMSG, Hook.SENDMSG, Hook.BIND, Hook.POST_BIND))
    if source.random() < 0.1:
        raw = source.random() < 0.3
        protocol = (
            Protocol.OTHER if raw else source.choice([p for p in Protocol if p not in (Protocol.TCP, Protocol.UDP)])
        )
        return Flow(Hook.SOCKET, protocol, source.choice((4, 6)), 0, 0, raw=raw)
    family, address = _random_address(source)
    port = source.choice((1, 53, 79, 80, 90, 91, 443, 444, 1023, 1024, 40000, 41000, 65535, source.randint(1, 65535)))
    if hook is Hook.BIND and source.random() < 0.3:
        port = 0
    often = (Protocol.TCP, Protocol.UDP) * 4 if rewriting else ()
    flow = Flow(hook, source.choice((*Protocol, *often)), family, address, port)
    binds_any = hook in (Hook.BIND, Hook.POST_BIND) and family == 6 and address == 0
    return replace(flow, v6_only=source.random() < 0.5) if binds_any else flow


def _flow_of_rewriting(source: random.Random) -> Flow:
    if source.random() < 0.3:
        kind = source.choice(list(SocketType))
        return Flow(Hook.CREATE, Protocol.OTHER, source.choice((4, 6)), 0, 0, type=kind)
    hook = source.choice((Hook.CONNECT, Hook.SENDMSG))
    return Flow(hook, Protocol.OTHER, UNIX, 0, 0, name=source.choice(SOCKET_NAMES))


def _random_address(source: random.Random) -> tuple[int, int]:
    family, start, length = source.choice(PREFIXES)
    bits = 32 if family == 4 else 128
    last = start + (1 << (bits - length)) - 1
    edge = source.choice((start - 1, start, start + 1, last - 1, last, last + 1, source.randint(start, last)))
    return family, min(max(edge, 0), (1 << bits) - 1)
