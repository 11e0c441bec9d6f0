# SPDX-License-Identifier: Apache-2.0
"""What a call would get from the generation in force, and every policy asked on the way, for `cgnetctl explain`.

Judged by the same tables and the same steps as in the kernel. Must not know how the question came.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from cgnetd.datapath.interpret import ExplainedStep, ImageReader
from cgnetd.datapath.label import Label
from cgnetd.datapath.rules import RuleIndex
from cgnetd.errors import UsageError
from cgnetd.policy.types import Action, Flow, Hook, Protocol
from cgnetd.service.words import errno_name

_HOOKS = {hook.value: hook for hook in Hook}
_PROTOCOLS = {protocol.value: protocol for protocol in Protocol} | {"mptcp": Protocol.TCP}


def parse_flow(args: Mapping[str, Any]) -> Flow:
    """The flow of `hook`, `protocol` ("raw": a raw socket), `address`, `port`, `v6_only`. Raises UsageError."""
    hook = _HOOKS.get(str(args.get("hook")))
    if hook is None:
        raise UsageError(f"explain: hook {args.get('hook')!r} is none of {', '.join(_HOOKS)}")
    name = str(args.get("protocol"))
    raw = name == "raw" and hook is Hook.SOCKET
    protocol = Protocol.OTHER if raw else _PROTOCOLS.get(name)
    if protocol is None:
        raise UsageError(f"explain: protocol {name!r} is none of {', '.join(_PROTOCOLS)}, raw (hook socket)")
    if hook is Hook.SOCKET:
        return Flow(hook, protocol, 4, 0, 0, raw=raw)
    address = _address(args.get("address"))
    port = args.get("port", 0)
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
        raise UsageError(f"explain: port {port!r} is not a number from 0 to 65535")
    return Flow(hook, protocol, address.version, _number(hook, address), port, v6_only=args.get("v6_only") is True)


def explain(reader: ImageReader, index: RuleIndex, label: Label | None, flow: Flow) -> dict[str, Any]:
    """Verdict, shadow verdict, what decided, and the policies asked for a task in a cgroup with this label."""
    verdict = reader.judge(label, None, flow)
    steps = reader.explain(label, flow) if label is not None and not label.overflow else ()
    return {
        "generation": index.generation,
        "source": f"generation {index.generation} in force",
        "verdict": "deny" if verdict.denied else "allow",
        "errno": errno_name(verdict.errno),
        **_rule("", index, verdict.rule_id),
        "shadow_verdict": "deny" if verdict.shadow_denied else "allow",
        "shadow_errno": errno_name(index.refs[verdict.shadow_rule_id].errno) if verdict.shadow_denied else "",
        **_rule("shadow_", index, verdict.shadow_rule_id),
        "steps": [*(_asked(index, step) for step in steps), *_not_asked(index, label, len(steps))],
    }


def _address(text: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        address = ipaddress.ip_address(str(text))
    except ValueError:
        raise UsageError(f"explain: {text!r} is no address") from None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _number(hook: Hook, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> int:
    """The wildcard as a destination is the loopback address, as the kernel takes it."""
    if hook in (Hook.CONNECT, Hook.SENDMSG) and not int(address):
        return int(ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1"))
    return int(address)


def _rule(prefix: str, index: RuleIndex, rule_id: int) -> dict[str, Any]:
    ref = index.refs[rule_id]
    return {
        f"{prefix}policy": ref.policy,
        f"{prefix}rule": ref.rule,
        f"{prefix}file": ref.file,
        f"{prefix}line": ref.line,
    }


def _asked(index: RuleIndex, step: ExplainedStep) -> dict[str, Any]:
    if step.rule_id is None:
        return _step(index, step.policy_id, "no rule matches")
    ref = index.refs[step.rule_id]
    said = f"rule {ref.rule}: {ref.action}"
    if ref.rule.startswith("default.") and step.action is not Action.PASS:
        said = f"no rule matches, default: {ref.action}"
    return _step(index, step.policy_id, said, ref.file, ref.line)


def _not_asked(index: RuleIndex, label: Label | None, asked: int) -> list[dict[str, Any]]:
    rest = label.policies[asked:] if label is not None else ()
    return [_step(index, policy_id, "not asked, decided before") for policy_id in rest]


def _step(index: RuleIndex, policy_id: int, outcome: str, file: str = "", line: int = 0) -> dict[str, Any]:
    ref = index.policies[policy_id]
    return {
        "policy": ref.name,
        "tier": ref.tier,
        "priority": ref.priority,
        "audit": ref.audit,
        "outcome": outcome,
        "file": file or ref.file,
        "line": line or ref.line,
    }
