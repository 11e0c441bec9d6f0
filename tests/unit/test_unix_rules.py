# SPDX-License-Identifier: Apache-2.0
"""Rules on names of UNIX sockets."""

from __future__ import annotations

import pytest
from flow_text import call, chain, decided, egress, enforced, named
from policy_text import policy

from cgnetd.policy.evaluate import evaluate, judge
from cgnetd.policy.names import ANY
from cgnetd.policy.types import Action, Hook

BUS, DOCKER = b"/run/bus", b"/run/docker.sock"


def test_rule_on_names_is_read() -> None:
    (rule,) = policy('  egress:\n    - {action: deny, unix: [/run/x, "@y*", any, /run/x], hooks: [connect]}').egress
    assert rule.unix == (b"/run/x", b"\0y*", *ANY)
    assert (rule.addresses, rule.protocols, rule.ports) == (None, None, None)
    assert rule.hooks == {Hook.CONNECT}


def test_first_rule_that_matches_the_name_decides() -> None:
    found = chain(egress('action: allow, unix: [/run/bus, "@x"]', "action: deny, unix: [any], errno: EACCES"))
    assert enforced(found, named(BUS)) == "allow p0/egress[0]"
    assert enforced(found, named(b"\0x")) == "allow p0/egress[0]"
    assert enforced(found, named(DOCKER)) == "deny p0/egress[1] errno 13"
    assert enforced(found, named(b"\0y", Hook.SENDMSG)) == "deny p0/egress[1] errno 13"


def test_hooks_apply() -> None:
    found = chain(egress("action: deny, unix: [any], hooks: [sendmsg]"))
    assert enforced(found, named(BUS)) == "allow default_action"
    assert enforced(found, named(BUS, Hook.SENDMSG)) == "deny p0/egress[0] errno 1"


def test_rules_on_addresses_and_defaults_do_not_speak_of_names() -> None:
    found = chain(egress("action: deny") + "\n  default: {egress: deny}")
    assert evaluate(found, named(BUS), Action.DENY).enforced.action is Action.ALLOW
    assert enforced(chain(egress("action: deny, unix: [any]")), call("10.0.0.1")) == "allow default_action"


def test_pass_goes_to_the_next_policy() -> None:
    found = chain(
        egress("action: pass, unix: [/run/bus]", "action: deny, unix: [any]"), egress("action: deny, unix: [/run/bus]")
    )
    assert enforced(found, named(BUS)) == "deny p1/egress[0] errno 1"
    assert enforced(found, named(DOCKER)) == "deny p0/egress[1] errno 1"


def test_name_is_redirected() -> None:
    found = chain(egress("action: redirect, unix: [/run/docker.sock], redirect: {unix: /run/filtered.sock}"))
    outcome = decided(found, named(DOCKER)).enforced
    assert (outcome.action, outcome.target) == (Action.REDIRECT, None)
    assert outcome.rule is not None
    assert outcome.rule.redirect is not None
    assert outcome.rule.redirect.name == b"/run/filtered.sock"
    abstract = chain(egress('action: redirect, unix: ["@x"], redirect: {unix: "@y"}'))[0].egress[0].redirect
    assert abstract is not None
    assert abstract.name == b"\0y"


def test_new_name_is_judged_by_what_comes_before() -> None:
    target = "action: redirect, unix: [/run/x], redirect: {unix: /run/y}"
    denies = "action: deny, unix: [/run/y], errno: EACCES"
    assert enforced(chain(egress(denies, target)), named(b"/run/x")) == "deny p0/egress[0] errno 13"
    assert enforced(chain(egress(denies), egress(target)), named(b"/run/x")) == "deny p0/egress[0] errno 13"
    assert enforced(chain(egress(target, denies)), named(b"/run/x")) == "redirect p0/egress[0]"
    assert enforced(chain(egress("action: deny"), egress(target)), named(b"/run/x")) == "redirect p1/egress[0]"


UNSURE = [b"x", b"../x", b"/run//x", b"/run/", b"/run/../etc"]


@pytest.mark.parametrize("name", UNSURE)
@pytest.mark.parametrize(
    ("rules", "verdict"),
    [
        (["action: deny, unix: [/nowhere], errno: EACCES"], "deny p0/egress[0] errno 13"),
        (["action: redirect, unix: [/nowhere], redirect: {unix: /x}"], "deny p0/egress[0] errno 1"),
        (['action: deny, unix: ["@x", "@*"]'], "allow default_action"),
        (['action: deny, unix: ["@x", /x]'], "deny p0/egress[0] errno 1"),
        (["action: allow, unix: [/run/**]", "action: deny, unix: [/x]"], "deny p0/egress[1] errno 1"),
        (["action: allow, unix: [any]", "action: deny, unix: [/x]"], "allow p0/egress[0]"),
        (["action: allow, unix: [/**]", "action: deny, unix: [/x]"], "allow p0/egress[0]"),
        (["action: pass, unix: [/**]", "action: deny, unix: [/x]"], "allow default_action"),
        (["action: pass, unix: [/*]", "action: deny, unix: [/x]"], "deny p0/egress[1] errno 1"),
        (["action: deny, unix: [/x], hooks: [sendmsg]"], "allow default_action"),
        (["action: deny"], "allow default_action"),
    ],
)
def test_name_that_could_be_any_path(rules: list[str], verdict: str, name: bytes) -> None:
    assert enforced(chain(egress(*rules)), named(name)) == verdict


def test_redirect_of_a_socket_of_another_cgroup_counts_as_allow() -> None:
    redirects = chain(egress("action: redirect, unix: [/run/x], redirect: {unix: /run/y}"))
    assert judge((), redirects, named(b"/run/x"), Action.ALLOW).enforced.action is Action.ALLOW
    assert judge((), redirects, named(b"x"), Action.ALLOW).enforced.action is Action.DENY
