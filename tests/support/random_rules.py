# SPDX-License-Identifier: Apache-2.0
"""Random rules and services for property tests, as `parse` would give them: what one must have for the other, it has.

Hypothesis strategies, which shrink. Must not know of policies or of any verdict.
"""

from __future__ import annotations

from hypothesis import strategies as st

from cgnetd.policy.names import ANY
from cgnetd.policy.ranges import difference, merged, union
from cgnetd.policy.types import (
    Action,
    AddressRanges,
    Backend,
    Endpoint,
    Hook,
    LocalAddresses,
    Protocol,
    Range,
    Redirect,
    Rewrite,
    Rule,
    Section,
    Service,
    SocketOptions,
    SocketType,
    Where,
)

WHERE = Where("random.yaml", 1)
ERRNOS = (1, 13, 111, 113, 101, 110)
PREFIXES = (
    (4, 0x0A000000, 8),
    (4, 0x0A010000, 16),
    (4, 0x0A010200, 24),
    (4, 0x0A010203, 32),
    (4, 0x7F000000, 8),
    (4, 0, 0),
    (4, 0, 32),
    (4, 0xC0000200, 24),
    (6, 0x20010DB8 << 96, 32),
    (6, 0x20010DB8_00010000 << 64, 48),
    (6, (0x20010DB8 << 96) + 1, 128),
    (6, 1, 128),
    (6, 0, 128),
    (6, 0, 0),
    (6, 0xFE80 << 112, 10),
)
TARGETS = {4: (0x7F000001, 0x0A010203, 0xC0000201), 6: (1, (0x20010DB8 << 96) + 1, (0x20010DB8_00010000 << 64) + 5)}
TARGET_PORTS = (0, 1, 53, 443, 8080)
GLOBS = (b"/run/*", b"/run/**", b"/**/a", b"/run/a", b"/**", b"/run/?", b"\0*", b"\0a[bc]", b"\0x*y")
SOCKET_NAMES = (
    *(b"/run/a", b"/run/b", b"/run/d/a", b"/tmp/x", b"/a", b"\0ab", b"\0xy", b"\0x/y", b"\0"),
    *(b"run/a", b"/run/../a", b"/run//a", b"/run/", b"./a"),  # unsure
)
MARKS, PRIORITIES, DEVICES = (0, 1, 0xFFFFFFFF), (0, 6), ("lo", "wg0")

_PORTS: tuple[Range, ...] = ((1, 1), (53, 53), (80, 90), (85, 443), (1024, 65535), (40000, 40999), (65535, 65535))
_REWRITABLE = (Protocol.TCP, Protocol.UDP)


def _ranges(prefix: tuple[int, int, int]) -> AddressRanges:
    family, start, length = prefix
    span = ((start, start + (1 << ((32 if family == 4 else 128) - length)) - 1),)
    return AddressRanges(v4=span) if family == 4 else AddressRanges(v6=span)


_one_range = st.sampled_from(PREFIXES).map(_ranges)
_addresses = st.one_of(
    st.none(),
    st.lists(_one_range, min_size=1, max_size=4).map(union),
    st.tuples(st.lists(_one_range, min_size=1, max_size=2).map(union), _one_range).map(lambda pair: difference(*pair)),
)
_protocols = st.one_of(
    st.none(), st.frozensets(st.sampled_from([p for p in Protocol if p is not Protocol.OTHER]), min_size=1, max_size=3)
)
_rewritable = st.frozensets(st.sampled_from(_REWRITABLE), min_size=1)
_ports = st.one_of(st.none(), st.lists(st.sampled_from(_PORTS), min_size=1, max_size=2, unique=True).map(merged))
_hooks = st.sampled_from([{Hook.CONNECT}, {Hook.SENDMSG}, {Hook.CONNECT, Hook.SENDMSG}]).map(frozenset)
_PLAIN = (Action.ALLOW, Action.DENY, Action.PASS)
_plain_action = st.sampled_from(_PLAIN)


def _endpoint(family: int) -> st.SearchStrategy[Endpoint]:
    return st.builds(Endpoint, st.just(family), st.sampled_from(TARGETS[family]), st.sampled_from(TARGET_PORTS))


_local = st.builds(LocalAddresses, st.sampled_from(TARGETS[4]), st.sampled_from(TARGETS[6]))
_backends = st.tuples(
    st.lists(_endpoint(4), min_size=1, max_size=3, unique=True),
    st.lists(_endpoint(6), min_size=1, max_size=2, unique=True),
)


@st.composite
def services(draw: st.DrawFn) -> tuple[Service, ...]:
    """None, one or two services of both families, with one backend or several."""
    made = []
    for number in range(draw(st.integers(0, 2))):
        v4, v6 = draw(_backends)
        endpoints = sorted([*v4, *v6], key=lambda e: (e.family, e.address, e.port))
        made.append(
            Service(
                name=f"s{number}",
                addresses=((4, 0xC0000200 + number), (6, (0x20010DB8 << 96) + 7 + number)),
                ports=((Protocol.TCP, 53), (Protocol.UDP, 53)),
                backends=tuple(Backend(endpoint, draw(st.sampled_from((1, 3)))) for endpoint in endpoints),
                where=WHERE,
                sticky_ns=draw(st.sampled_from((0, 10**9))),
                errno=draw(st.sampled_from((111, 113))),
            )
        )
    return tuple(made)


@st.composite
def egress_rule(
    draw: st.DrawFn, name: str, errnos: tuple[int, ...], served: tuple[Service, ...], rewriting: bool
) -> Rule:
    """A rule on addresses. With `rewriting` also one that redirects, perhaps to a service, or has a source."""
    action = draw(st.sampled_from([*_PLAIN, Action.REDIRECT, Action.REDIRECT]) if rewriting else _plain_action)
    may_have_source = rewriting and action in (Action.ALLOW, Action.REDIRECT)
    source = draw(_local) if may_have_source and draw(st.booleans()) else None
    is_limited = action is Action.REDIRECT or source is not None
    to_service = [st.builds(Redirect, service=st.sampled_from(served))] if served else []
    redirect = st.one_of(st.builds(Redirect, _endpoint(4), _endpoint(6)), *to_service)
    return Rule(
        name=name,
        section=Section.EGRESS,
        action=action,
        where=WHERE,
        addresses=draw(_addresses),
        protocols=draw(_rewritable if is_limited else _protocols),
        ports=draw(_ports),
        hooks=draw(_hooks),
        errno=draw(st.sampled_from(errnos)) if action is Action.DENY else 1,
        redirect=draw(redirect) if action is Action.REDIRECT else None,
        source=source,
    )


@st.composite
def unix_rule(draw: st.DrawFn, name: str, errnos: tuple[int, ...]) -> Rule:
    action = draw(st.sampled_from([*_PLAIN, Action.REDIRECT, Action.REDIRECT]))
    globs = st.one_of(st.just(ANY), st.lists(st.sampled_from(GLOBS), min_size=1, max_size=2, unique=True).map(tuple))
    target = st.sampled_from((b"/run/a", b"/run/d/b", b"\0ab"))
    return Rule(
        name=name,
        section=Section.EGRESS,
        action=action,
        where=WHERE,
        hooks=draw(_hooks),
        errno=draw(st.sampled_from(errnos)) if action is Action.DENY else 1,
        redirect=Redirect(name=draw(target)) if action is Action.REDIRECT else None,
        unix=draw(globs),
    )


@st.composite
def bind_rule(draw: st.DrawFn, name: str, errnos: tuple[int, ...], rewriting: bool) -> Rule:
    """With `rewriting` also one that rewrites the address, the port, or both, and one that gives the privilege."""
    action = draw(st.sampled_from([*_PLAIN, Action.REWRITE, Action.REWRITE]) if rewriting else _plain_action)
    ephemeral, ports = draw(st.booleans()), draw(_ports)
    both = st.builds(Rewrite, _local, st.sampled_from((None, 80, 8080)))
    rewrite = st.one_of(both, st.builds(Rewrite, port=st.sampled_from((80, 8080))))
    may_be_privileged = rewriting and action in (Action.ALLOW, Action.REWRITE)
    return Rule(
        name=name,
        section=Section.BIND,
        action=action,
        where=WHERE,
        addresses=draw(_addresses),
        protocols=draw(_rewritable if action is Action.REWRITE else _protocols),
        ports=() if ephemeral and ports is None else ports,
        ephemeral=ephemeral,
        errno=draw(st.sampled_from(errnos)) if action is Action.DENY else 1,
        rewrite=draw(rewrite) if action is Action.REWRITE else None,
        privileged=may_be_privileged and draw(st.booleans()),
    )


@st.composite
def socket_rule(draw: st.DrawFn, name: str, errnos: tuple[int, ...]) -> Rule:
    action = draw(_plain_action)
    types = [kind for kind in SocketType if kind is not SocketType.OTHER]
    options = st.builds(
        SocketOptions,
        st.none() | st.sampled_from(MARKS),
        st.none() | st.sampled_from(PRIORITIES),
        st.none() | st.sampled_from(DEVICES),
    )
    return Rule(
        name=name,
        section=Section.SOCKET,
        action=action,
        where=WHERE,
        families=draw(st.none() | st.frozensets(st.sampled_from((4, 6)), min_size=1)),
        types=draw(st.none() | st.frozensets(st.sampled_from(types), min_size=1)),
        errno=draw(st.sampled_from(errnos)) if action is Action.DENY else 1,
        options=draw(options) if action is Action.ALLOW and draw(st.booleans()) else None,
    )
