# SPDX-License-Identifier: Apache-2.0
"""Calls and policies in tests as a person would write them, and outcomes likewise."""

from __future__ import annotations

from ipaddress import ip_address

from policy_text import HEAD, parse_good

from cgnetd.policy.endpoints import endpoint_text
from cgnetd.policy.evaluate import Choose, evaluate, first_backend
from cgnetd.policy.matching import UNIX
from cgnetd.policy.types import Action, Decision, Flow, Hook, Outcome, Policy, PolicySet, Protocol

DOCUMENT = "---\napiVersion: cgnetd/v1\nkind: %s\nmetadata: {name: %s}\nspec: %s\n"


def policy_text(name: str, spec: str) -> str:
    """A document with this spec (indented by two blanks, without its subject)."""
    return f"---\n{HEAD.replace('name: a', f'name: {name}')}spec:\n  subject: {{units: [a.service]}}\n{spec}\n"


def service_text(name: str, spec: str) -> str:
    return DOCUMENT % ("Service", name, spec)


def parsed(*specs: str, services: str = "") -> PolicySet:
    """Policies p0, p1, ... with these specs, in this order of evaluation."""
    texts = [policy_text(f"p{number}", f"  priority: {number}\n{spec}") for number, spec in enumerate(specs)]
    return parse_good("".join(texts) + services)


def chain(*specs: str, services: str = "") -> tuple[Policy, ...]:
    return parsed(*specs, services=services).policies


def egress(*rules: str) -> str:
    return "  egress:\n" + "\n".join(f"    - {{{rule}}}" for rule in rules)


def bind(*rules: str) -> str:
    return "  bind:\n" + "\n".join(f"    - {{{rule}}}" for rule in rules)


def call(to: str, port: int = 443, *, protocol: Protocol = Protocol.TCP, hook: Hook = Hook.CONNECT) -> Flow:
    address = ip_address(to)
    return Flow(hook, protocol, address.version, int(address), port)


def binding(to: str, port: int, *, hook: Hook = Hook.BIND, v6_only: bool = False) -> Flow:
    address = ip_address(to)
    return Flow(hook, Protocol.TCP, address.version, int(address), port, v6_only=v6_only)


def named(name: bytes, hook: Hook = Hook.CONNECT) -> Flow:
    return Flow(hook, Protocol.OTHER, UNIX, 0, 0, name=name)


def decided(policies: tuple[Policy, ...], flow: Flow, choose: Choose = first_backend) -> Decision:
    return evaluate(policies, flow, Action.ALLOW, choose)


def told(outcome: Outcome) -> str:
    """An outcome as "redirect p0/egress[1] to 127.0.0.1:80" or "deny p0 errno 1"."""
    place = outcome.policy.name if outcome.policy else "default_action"
    place += f"/{outcome.rule.name}" if outcome.rule else ""
    target = f" to {endpoint_text(outcome.target)}" if outcome.target else ""
    denial = f" errno {outcome.errno}" if outcome.action is Action.DENY else ""
    return f"{outcome.action.value} {place}{target}{denial}"


def enforced(policies: tuple[Policy, ...], flow: Flow, choose: Choose = first_backend) -> str:
    return told(decided(policies, flow, choose).enforced)
