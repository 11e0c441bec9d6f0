# SPDX-License-Identifier: Apache-2.0
"""The reference semantics, rule by rule of the policy language. Texts are parsed, so that both are read together."""

from __future__ import annotations

import errno
from ipaddress import ip_address

import pytest
from policy_text import HEAD, parse_good

from cgnetd.policy.evaluate import evaluate, judge
from cgnetd.policy.ranges import EVERYTHING
from cgnetd.policy.types import Action, Decision, Flow, Hook, Policy, Protocol, Rule, Section, Subject, Where

ALLOW, DENY, PASS = Action.ALLOW, Action.DENY, Action.PASS
_NUMBER = iter(range(1_000_000))


def policy(*rules: str, section: str = "egress", more: str = "") -> Policy:
    """A policy of rules written as flow mappings; `more` are further lines of its spec."""
    name = f"p{next(_NUMBER)}"
    listed = "".join(f"    - {{{rule}}}\n" for rule in rules)
    spec = f"spec:\n  subject: {{units: [x]}}\n  {section}:\n{listed}" if rules else "spec:\n  subject: {units: [x]}\n"
    return parse_good(f"{HEAD.replace('name: a', f'name: {name}')}{spec}  {more}\n").policies[0]


def connect(
    to: str = "10.0.0.1", port: int = 443, protocol: Protocol = Protocol.TCP, hook: Hook = Hook.CONNECT
) -> Flow:
    address = ip_address(to)
    return Flow(hook, protocol, address.version, int(address), port)


def bind(to: str, port: int, *, picked: bool = False, v6_only: bool = False) -> Flow:
    address = ip_address(to)
    hook = Hook.POST_BIND if picked else Hook.BIND
    return Flow(hook, Protocol.TCP, address.version, int(address), port, v6_only=v6_only)


def socket(protocol: Protocol, *, raw: bool = False) -> Flow:
    return Flow(Hook.SOCKET, protocol, 4, 0, 0, raw=raw)


def enforced(flow: Flow, *chain: Policy, default: Action = ALLOW) -> Action:
    return evaluate(chain, flow, default).enforced.action


def test_first_matching_rule_decides() -> None:
    found = policy("action: allow, to: [10.0.0.1]", "action: deny, to: [10.0.0.0/8]", "action: allow")
    assert enforced(connect("10.0.0.1"), found) is ALLOW
    assert enforced(connect("10.0.0.2"), found) is DENY
    assert enforced(connect("11.0.0.1"), found) is ALLOW


@pytest.mark.parametrize(
    ("rule", "flow", "matches"),
    [
        ("ports: [443]", connect(port=443), True),
        ("ports: [443]", connect(port=444), False),
        ("ports: [400-443]", connect(port=400), True),
        ("ports: [1-65535]", connect(port=0), False),
        ("protocols: [tcp]", connect(), True),
        ("protocols: [udp]", connect(), False),
        ("protocols: [any]", connect(protocol=Protocol.OTHER), True),
        ("protocols: [tcp, udp, udplite, sctp, icmp]", connect(protocol=Protocol.OTHER), False),
        ("hooks: [connect]", connect(), True),
        ("hooks: [connect]", connect(hook=Hook.SENDMSG), False),
        ("hooks: [sendmsg]", connect(hook=Hook.SENDMSG), True),
        ("to: [10.0.0.0/8]", connect("2001:db8::1"), False),
        ('to: ["2001:db8::/32"]', connect("2001:db8::1"), True),
        ('to: ["::/0"]', connect("10.0.0.1"), False),
        ("to: [any]", connect("2001:db8::1"), True),
        ("to: [any], except: [private]", connect("10.0.0.1"), False),
        ("to: [any], except: [private]", connect("11.0.0.1"), True),
    ],
)
def test_egress_rule_matches(rule: str, flow: Flow, matches: bool) -> None:
    assert (enforced(flow, policy(f"action: deny, {rule}")) is DENY) is matches


def test_sections_do_not_mix() -> None:
    assert enforced(bind("10.0.0.1", 80), policy("action: deny")) is ALLOW
    assert enforced(connect(), policy("action: deny", section="bind")) is ALLOW


def test_errno_is_of_the_rule_that_denies() -> None:
    found = policy("action: deny, ports: [1], errno: ETIMEDOUT", "action: deny")
    assert evaluate([found], connect(port=1), ALLOW).enforced.errno == errno.ETIMEDOUT
    assert evaluate([found], connect(port=2), ALLOW).enforced.errno == errno.EPERM
    assert evaluate([policy("action: allow")], connect(), ALLOW).enforced.errno == 0


def test_default_of_a_policy_decides_where_no_rule_matches() -> None:
    denies = policy("action: allow, ports: [1]", more="default: {egress: deny}")
    allows = policy("action: deny, ports: [1]", more="default: {egress: allow}")
    outcome = evaluate([denies, allows], connect(), ALLOW).enforced
    assert (outcome.action, outcome.errno, outcome.policy, outcome.rule) == (DENY, errno.EPERM, denies, None)
    assert enforced(connect(), allows, denies) is ALLOW
    assert enforced(bind("10.0.0.1", 1), denies) is ALLOW


def test_pass_leaves_the_policy_and_its_default() -> None:
    first = policy("action: pass, ports: [443]", "action: deny", more="default: {egress: deny}")
    assert enforced(connect(port=443), first, policy("action: allow")) is ALLOW
    assert enforced(connect(port=444), first, policy("action: allow")) is DENY


def test_default_action_speaks_last_and_never_for_the_ungoverned() -> None:
    silent = policy("action: deny, ports: [1]")
    assert enforced(connect(), silent, default=DENY) is DENY
    assert evaluate([silent], connect(), DENY).enforced.policy is None
    assert evaluate([silent], connect(), DENY).enforced.errno == errno.EPERM
    assert enforced(connect(), default=DENY) is ALLOW
    assert judge(None, (), connect(), DENY).enforced.action is ALLOW


def test_audit_policy_only_shapes_the_shadow() -> None:
    audit, strict = policy("action: deny", more="mode: audit"), policy("action: allow")
    decision = evaluate([audit, strict], connect(), ALLOW)
    assert (decision.enforced.action, decision.enforced.policy) == (ALLOW, strict)
    assert (decision.shadow.action, decision.shadow.policy) == (DENY, audit)
    assert enforced(connect(), audit, default=DENY) is DENY


def test_shadow_is_the_first_decision_with_audit_policies_taken_as_enforcing() -> None:
    allows, denies = policy("action: allow", more="mode: audit"), policy("action: deny", more="mode: audit")
    assert evaluate([allows, denies], connect(), ALLOW).shadow.policy is allows
    decision = evaluate([policy("action: deny"), allows], connect(), ALLOW)
    assert decision.shadow == decision.enforced
    assert len(decision.steps) == 1


def test_steps_tell_every_policy_walked() -> None:
    silent, passing = policy("action: deny, ports: [1]"), policy("action: pass")
    audit, last = policy("action: deny", more="mode: audit"), policy("action: allow")
    steps = evaluate([silent, passing, audit, last, silent], connect(), ALLOW).steps
    assert [(step.policy, step.rule is not None, step.action, step.audit) for step in steps] == [
        (silent, False, PASS, False),
        (passing, True, PASS, False),
        (audit, True, DENY, True),
        (last, True, ALLOW, False),
    ]


@pytest.mark.parametrize(
    ("ports", "flow", "matches"),
    [
        ("[80]", bind("10.0.0.1", 80), True),
        ("[80]", bind("10.0.0.1", 0), False),
        ("[1-65535]", bind("10.0.0.1", 0), False),
        ("[ephemeral]", bind("10.0.0.1", 0), True),
        ("[ephemeral]", bind("10.0.0.1", 40000), False),
        ("[ephemeral]", bind("10.0.0.1", 40000, picked=True), True),
        ("[80]", bind("10.0.0.1", 40000, picked=True), False),
        ("[40000-50000]", bind("10.0.0.1", 40000, picked=True), True),
        ("[80, ephemeral]", bind("10.0.0.1", 80), True),
    ],
)
def test_bind_ports(ports: str, flow: Flow, matches: bool) -> None:
    assert (enforced(flow, policy(f"action: deny, ports: {ports}", section="bind")) is DENY) is matches


def test_bind_without_ports_matches_port_0() -> None:
    found = policy("action: deny, addresses: [10.0.0.1]", section="bind")
    assert enforced(bind("10.0.0.1", 0), found) is DENY
    assert enforced(bind("10.0.0.2", 0), found) is ALLOW


@pytest.mark.parametrize("picked", [False, True])
def test_dual_stack_wildcard_is_judged_as_both(picked: bool) -> None:
    v4 = policy("action: deny, addresses: [0.0.0.0]", section="bind")
    v6 = policy('action: deny, addresses: ["::"]', section="bind")
    both = bind("::", 80, picked=picked)
    assert enforced(both, v4) is DENY
    assert enforced(both, v6) is DENY
    assert enforced(bind("::", 80, picked=picked, v6_only=True), v4) is ALLOW
    assert enforced(bind("0.0.0.0", 80, picked=picked), v6) is ALLOW
    assert enforced(bind("::1", 80, picked=picked), policy("action: deny, addresses: [any]", section="bind")) is DENY


def test_dual_stack_wildcard_that_is_allowed_tells_the_v6_decision() -> None:
    found = policy('action: allow, addresses: ["::"]', "action: allow", section="bind")
    rule = evaluate([found], bind("::", 80), ALLOW).enforced.rule
    assert rule is found.bind[0]


def test_dual_stack_wildcard_shadow_is_combined_on_its_own() -> None:
    audit = policy("action: deny, addresses: [0.0.0.0]", section="bind", more="mode: audit")
    decision = evaluate([audit], bind("::", 80), ALLOW)
    assert (decision.enforced.action, decision.shadow.action) == (ALLOW, DENY)


def test_wildcard_connect_is_not_judged_twice() -> None:
    assert enforced(connect("::"), policy("action: deny, to: [0.0.0.0]")) is ALLOW


def both_identities(task: Policy | None, made_by: Policy | None) -> Decision:
    return judge([task] if task else None, [made_by] if made_by else None, connect(), ALLOW)


def test_either_identity_can_deny() -> None:
    allows, denies = policy("action: allow"), policy("action: deny")
    assert both_identities(allows, denies).enforced.policy is denies
    assert both_identities(denies, allows).enforced.policy is denies
    assert both_identities(None, denies).enforced.policy is denies
    assert both_identities(denies, None).enforced.policy is denies


def test_task_is_told_first_when_both_agree() -> None:
    task, made_by = policy("action: allow"), policy("action: allow")
    assert both_identities(task, made_by).enforced.policy is task
    assert both_identities(None, made_by).enforced.policy is made_by
    task, made_by = policy("action: deny"), policy("action: deny")
    assert both_identities(task, made_by).enforced.policy is task


def test_shadow_of_two_identities_is_combined_on_its_own() -> None:
    allows, audit = policy("action: allow"), policy("action: deny", more="mode: audit")
    decision = both_identities(allows, audit)
    assert (decision.enforced.policy, decision.shadow.policy) == (allows, audit)


def test_empty_chain_has_no_say_beside_a_governed_one() -> None:
    silent = policy("action: deny, ports: [1]")
    assert judge((), [silent], connect(), DENY).enforced.action is DENY
    assert judge([policy("action: allow")], (), connect(), DENY).enforced.action is ALLOW


@pytest.mark.parametrize(
    ("rules", "protocol", "verdict"),
    [
        (["action: deny, to: [10.0.0.1]"], Protocol.SCTP, DENY),
        (["action: deny, ports: [1], protocols: [sctp]"], Protocol.SCTP, DENY),
        (["action: deny, protocols: [tcp]"], Protocol.SCTP, ALLOW),
        (["action: allow", "action: deny"], Protocol.SCTP, ALLOW),
        (["action: allow, protocols: [sctp]", "action: deny"], Protocol.SCTP, ALLOW),
        (["action: allow, protocols: [udplite]", "action: deny"], Protocol.SCTP, DENY),
        (["action: allow, to: [10.0.0.0/8]", "action: deny"], Protocol.SCTP, DENY),
        (["action: allow, ports: [1-65535]", "action: deny"], Protocol.SCTP, DENY),
        (["action: allow, hooks: [connect]", "action: deny"], Protocol.SCTP, DENY),
        (["action: allow, to: [any]", "action: deny"], Protocol.ICMP, ALLOW),
        (["action: pass", "action: deny"], Protocol.UDPLITE, ALLOW),
        (["action: pass, ports: [1]", "action: deny"], Protocol.UDPLITE, DENY),
        (["action: deny, protocols: [icmp]"], Protocol.OTHER, ALLOW),
    ],
)
def test_socket_that_no_hook_sees(rules: list[str], protocol: Protocol, verdict: Action) -> None:
    assert enforced(socket(protocol), policy(*rules)) is verdict


@pytest.mark.parametrize(
    ("rules", "verdict"),
    [
        (["action: deny, protocols: [tcp], ports: [1]"], DENY),
        (["action: allow, protocols: [tcp, udp, udplite, sctp, icmp]", "action: deny, protocols: [tcp]"], DENY),
        (["action: allow", "action: deny"], ALLOW),
        (["action: allow, protocols: [any]", "action: deny"], ALLOW),
    ],
)
def test_raw_socket_can_send_every_protocol(rules: list[str], verdict: Action) -> None:
    assert enforced(socket(Protocol.OTHER, raw=True), policy(*rules)) is verdict


def test_socket_meets_the_default() -> None:
    found = policy("action: allow, protocols: [tcp]", more="default: {egress: deny}")
    assert enforced(socket(Protocol.SCTP), found) is DENY
    assert (
        enforced(socket(Protocol.SCTP), policy("action: deny", section="bind", more="default: {bind: deny}")) is ALLOW
    )


def test_all_addresses_written_out_are_unconditional() -> None:
    subject, where = Subject(()), Where("f", 1)
    hooks = frozenset({Hook.CONNECT, Hook.SENDMSG})
    rule = Rule("r", Section.EGRESS, ALLOW, where, addresses=EVERYTHING, protocols=frozenset(Protocol), hooks=hooks)
    found = Policy("p", subject, where, egress=(rule,), default_egress=DENY)
    assert enforced(socket(Protocol.SCTP), found) is ALLOW
    assert enforced(socket(Protocol.OTHER, raw=True), found) is ALLOW
