# SPDX-License-Identifier: Apache-2.0
"""Policy sets, subjects and calls drawn at random, with everything that rules can say. Must not know any verdict.

Calls are drawn from a seeded generator, hundreds for one set, near the edges of what its rules name and lead to.
"""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import strategies as st

from cgnetd.policy.types import (
    Action,
    AddressRanges,
    Backend,
    Endpoint,
    Flow,
    Hook,
    LocalAddresses,
    Pattern,
    PatternKind,
    Policy,
    PolicySet,
    Protocol,
    Redirect,
    Rewrite,
    Rule,
    Section,
    Service,
    SocketOptions,
    SocketType,
    Subject,
    TcpSettings,
    Tier,
    Where,
)

WHERE = Where("test.yaml", 1)
LAST = {4: (1 << 32) - 1, 6: (1 << 128) - 1}
LANDMARKS = {
    4: (0, 1, 0x0A000000, 0x0A0000FF, 0x0AFFFFFF, 0x7F000001, 0x80000000, 0xC0A80101, LAST[4]),
    6: (0, 1, 1 << 64, (1 << 64) - 1, 0x20010DB8 << 96, (0x20010DB8 << 96) + 7, 1 << 127, LAST[6]),
}
PORTS = (1, 22, 53, 80, 443, 444, 1024, 8000, 65535)
PORTFUL = (Protocol.TCP, Protocol.UDP)
BOTH_HOOKS = frozenset({Hook.CONNECT, Hook.SENDMSG})
ONE_HOOK = (frozenset({Hook.CONNECT}), frozenset({Hook.SENDMSG}))
UNIX_GLOBS = (b"/**", b"/run/*", b"/run/**/a", b"/run/?.sock", b"/tmp/[ab]*", b"/run/a", b"\0*", b"\0a*b", b"\0[!a]?")
UNIX_NAMES = (
    *(b"/run/a", b"/run/x/y/a", b"/run/b.sock", b"/tmp/abc", b"/tmp/c", b"/", b"/run/", b"run/a", b"./a", b"/run/../a"),
    *(b"/run//a", b"/run/..a", b"\0", b"\0ab", b"\0axxb", b"\0b", b"\0ba", b"\0/../a", b"/run/.", b"/run/..."),
)


def addresses_near(family: int) -> st.SearchStrategy[int]:
    near = st.tuples(st.sampled_from(LANDMARKS[family]), st.integers(-2, 2)).map(sum)
    return st.one_of(near, st.integers(0, LAST[family])).map(lambda a: min(max(a, 0), LAST[family]))


def ranges(points: list[int]) -> tuple[tuple[int, int], ...]:
    """Sorted, disjoint ranges that do not touch, from any points."""
    pairs = sorted(points)
    found: list[tuple[int, int]] = []
    for first, last in zip(pairs[::2], pairs[1::2], strict=False):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], last)
        else:
            found.append((first, last))
    return tuple(found)


def address_ranges() -> st.SearchStrategy[AddressRanges]:
    v4 = st.lists(addresses_near(4), max_size=6).map(ranges)
    v6 = st.lists(addresses_near(6), max_size=6).map(ranges)
    everything = st.just(AddressRanges(((0, LAST[4]),), ((0, LAST[6]),)))
    some = st.builds(AddressRanges, v4, v6)
    return st.one_of(some, some, some, everything)


def port_ranges() -> st.SearchStrategy[tuple[tuple[int, int], ...]]:
    return st.lists(st.sampled_from(PORTS), min_size=2, max_size=6).map(ranges)


def endpoints(family: int, pool: list[AddressRanges]) -> st.SearchStrategy[Endpoint]:
    """Where rules begin and end, if any do."""
    named = [edge for each in pool for span in (each.v4 if family == 4 else each.v6) for edge in span]
    addresses = st.sampled_from(named) if named else addresses_near(family)
    return st.builds(Endpoint, st.just(family), addresses, st.sampled_from((0, 0, *PORTS)))


@st.composite
def services(draw: st.DrawFn, pool: list[AddressRanges]) -> tuple[Service, ...]:
    """Up to two, with backends of both families."""
    made = []
    for number in range(draw(st.integers(0, 2))):
        drawn = [draw(st.lists(endpoints(family, pool), min_size=1, max_size=3, unique=True)) for family in (4, 6)]
        ordered = sorted((e for each in drawn for e in each), key=lambda e: (e.family, e.address, e.port))
        backends = tuple(Backend(endpoint, draw(st.integers(1, 100))) for endpoint in ordered)
        errno = draw(st.sampled_from([111, 113]))
        made.append(Service(f"s{number}", ((4, 1),), ((Protocol.TCP, 80),), backends, WHERE, errno=errno))
    return tuple(made)


@st.composite
def redirects(draw: Any, pool: list[AddressRanges], known: tuple[Service, ...]) -> Redirect:
    if known and draw(st.integers(0, 1)):
        return Redirect(service=draw(st.sampled_from(known)))
    return Redirect(draw(endpoints(4, pool)), draw(endpoints(6, pool)))


@st.composite
def egress_rules(draw: st.DrawFn, pool: list[AddressRanges], known: tuple[Service, ...]) -> Rule:
    action = draw(st.sampled_from([Action.ALLOW, Action.DENY, Action.PASS, Action.REDIRECT, Action.REDIRECT]))
    hooks = draw(st.just(BOTH_HOOKS) | st.sampled_from(ONE_HOOK))
    if draw(st.integers(0, 3)) == 0:
        return unix_rule(draw, action, hooks)
    can_have_source = action in (Action.ALLOW, Action.REDIRECT)
    source = LocalAddresses(1, 2) if can_have_source and draw(st.integers(0, 3)) == 0 else None
    chosen = PORTFUL if source or action is Action.REDIRECT else tuple(Protocol)
    some = st.frozensets(st.sampled_from(chosen), min_size=1)
    return Rule(
        name="rule",
        section=Section.EGRESS,
        action=action,
        where=WHERE,
        addresses=draw(st.sampled_from([*pool, *pool, None])),
        protocols=draw(some if len(chosen) == len(PORTFUL) else st.none() | some),
        ports=draw(st.none() | st.none() | port_ranges()),
        hooks=hooks,
        errno=draw(st.sampled_from([1, 13, 111])) if action is Action.DENY else 1,
        redirect=draw(redirects(pool, known)) if action is Action.REDIRECT else None,
        source=source,
    )


def unix_rule(draw: st.DrawFn, action: Action, hooks: frozenset[Hook]) -> Rule:
    globs = draw(st.lists(st.sampled_from(UNIX_GLOBS), min_size=1, max_size=3, unique=True))
    names = [name for name in UNIX_NAMES if name.startswith((b"/run/a", b"/tmp", b"\0a"))]
    redirect = Redirect(name=draw(st.sampled_from(names))) if action is Action.REDIRECT else None
    return Rule("rule", Section.EGRESS, action, WHERE, hooks=hooks, unix=tuple(globs), redirect=redirect)


@st.composite
def bind_rules(draw: st.DrawFn, pool: list[AddressRanges]) -> Rule:
    action = draw(st.sampled_from([Action.ALLOW, Action.DENY, Action.PASS, Action.REWRITE, Action.REWRITE]))
    ports = draw(st.none() | port_ranges())
    ephemeral = ports is not None and draw(st.booleans())
    addresses = st.builds(LocalAddresses, st.none() | addresses_near(4), st.none() | addresses_near(6))
    rewrite = st.builds(Rewrite, addresses, st.none() | st.sampled_from(PORTS))
    return Rule(
        name="rule",
        section=Section.BIND,
        action=action,
        where=WHERE,
        addresses=draw(st.none() | st.sampled_from(pool)),
        protocols=draw(st.none() | st.frozensets(st.sampled_from(Protocol), min_size=1)),
        ports=() if ephemeral and draw(st.booleans()) else ports,
        ephemeral=ephemeral,
        errno=draw(st.sampled_from([1, 13, 111])) if action is Action.DENY else 1,
        rewrite=draw(rewrite) if action is Action.REWRITE else None,
        privileged=action in (Action.ALLOW, Action.REWRITE) and draw(st.booleans()),
    )


@st.composite
def socket_rules(draw: st.DrawFn) -> Rule:
    action = draw(st.sampled_from([Action.ALLOW, Action.DENY, Action.PASS]))
    options = SocketOptions(mark=draw(st.none() | st.just(16)), device=draw(st.none() | st.sampled_from(["lo", "wg0"])))
    return Rule(
        name="rule",
        section=Section.SOCKET,
        action=action,
        where=WHERE,
        errno=13 if action is Action.DENY else 1,
        families=draw(st.none() | st.frozensets(st.sampled_from([4, 6]), min_size=1)),
        types=draw(st.none() | st.frozensets(st.sampled_from(SocketType), min_size=1)),
        options=options if action is Action.ALLOW and draw(st.booleans()) else None,
    )


NAMES = ("a", "ab", "b", "a.service", "ab.service", "web@1.service", "x.slice", "user@1000.service", "user@x.service")
GLOBS = ("a", "?", "a*", "*b", "*", "*.service", "[ab]", "[!a]*", "a.service", "web@*.service", "*e*1*", "*a*b", "??*")
PATHS = (
    *("/", "/**", "/a", "/a/**", "/*/b", "/**/b", "/a/**/*.service", "/**/a/**", "/x.slice/*", "/*/**", "/**/**"),
    "/a*/?",
)
EVERYWHERE = Subject((Pattern(PatternKind.PATH, "/"),))


def patterns() -> st.SearchStrategy[Pattern]:
    units = st.builds(Pattern, st.sampled_from([PatternKind.UNIT, PatternKind.USER_UNIT]), st.sampled_from(GLOBS))
    return units | st.builds(Pattern, st.just(PatternKind.PATH), st.sampled_from(PATHS))


def subjects() -> st.SearchStrategy[Subject]:
    return st.builds(
        Subject,
        st.lists(patterns(), min_size=1, max_size=3).map(tuple),
        st.lists(patterns(), max_size=1).map(tuple),
    )


def named(unnamed: list[Rule]) -> tuple[Rule, ...]:
    """The rules with names as the language gives them, each one its own."""
    return tuple(rule._replace(name=f"{rule.section.value}[{number}]") for number, rule in enumerate(unnamed))


DEFAULTS = st.sampled_from([Action.PASS, Action.PASS, Action.PASS, Action.ALLOW, Action.DENY])


@st.composite
def policy_sets(draw: st.DrawFn, *, with_rules: bool = True, max_size: int = 5) -> PolicySet:
    pool = draw(st.lists(address_ranges(), min_size=2, max_size=5)) if with_rules else []
    known = draw(services(pool)) if with_rules else ()
    most, fewest = (6, st.sampled_from([0, 3])) if with_rules else (0, st.just(0))
    policies = [
        Policy(
            name=f"p{number}",
            subject=draw(st.just(EVERYWHERE) | subjects() if with_rules else subjects()),
            where=WHERE,
            tier=draw(st.sampled_from(Tier)),
            priority=draw(st.sampled_from([1, 500])),
            audit=draw(st.booleans()),
            egress=named(draw(st.lists(egress_rules(pool, known), min_size=draw(fewest), max_size=most))),
            bind=named(draw(st.lists(bind_rules(pool), min_size=draw(fewest), max_size=most))),
            socket=named(draw(st.lists(socket_rules(), max_size=most // 2))),
            default_egress=draw(DEFAULTS),
            default_bind=draw(DEFAULTS),
            default_socket=draw(DEFAULTS),
            tcp=draw(st.none() | st.builds(TcpSettings, st.none() | st.just("reno"), st.none() | st.just(200))),
        )
        for number in range(draw(st.integers(1, max_size)))
    ]
    return PolicySet(tuple(sorted(policies, key=lambda policy: policy.order)), services=known)


def flow(policy_set: PolicySet, random: Random) -> Flow:
    """A call that is likely to be at the edge of some rule."""
    hook, protocol, family = random.choice(list(Hook)), random.choice(list(Protocol)), random.choice([4, 6])
    if hook is Hook.SOCKET:
        return Flow(hook, protocol, family, 0, 0, raw=random.random() < 0.5)
    if hook is Hook.CREATE:
        return Flow(hook, Protocol.OTHER, family, 0, 0, type=random.choice(list(SocketType)))
    if hook in BOTH_HOOKS and random.random() < 0.2:
        return Flow(hook, Protocol.OTHER, 1, 0, 0, name=random.choice(UNIX_NAMES))
    section = Section.BIND if hook in (Hook.BIND, Hook.POST_BIND) else Section.EGRESS
    rules = [rule for policy in policy_set.policies for rule in (*policy.egress, *policy.bind) if rule.unix is None]
    aim = random.choice([rule for rule in rules if rule.section is section] or [None])
    if aim is not None and aim.protocols is not None and random.random() < 0.8:
        protocol = random.choice(sorted(aim.protocols, key=lambda p: p.value))
    address = random.choice([0, random.randint(0, LAST[family]), *_edges(aim, family), *_edges(aim, family)])
    ports = [edge for span in (aim.ports if aim and aim.ports else ()) for edge in span]
    port = random.choice(ports or PORTS)
    if random.random() < 0.3:
        address, port = address + random.choice([-1, 1]), random.choice(PORTS) + random.choice([-1, 0, 1])
    if hook is not Hook.POST_BIND and random.random() < 0.2:
        port = 0
    in_range = min(max(address, 0), LAST[family]), min(max(port, int(hook is Hook.POST_BIND)), 65535)
    return Flow(hook, protocol, family, *in_range, v6_only=random.random() < 0.5)


def _edges(rule: Rule | None, family: int) -> list[int]:
    if rule is None or rule.addresses is None:
        return []
    return [edge for span in (rule.addresses.v4 if family == 4 else rule.addresses.v6) for edge in span]
