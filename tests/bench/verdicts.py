# SPDX-License-Identifier: Apache-2.0
"""What a verdict takes that no CPU remembers, by the number of policies asked and of rules in each.

The hooks' own functions run in the test program, as the kernel times them: each policy of the chain is asked up to the
last one, which decides by its default. Finding the label is not in it. Caches are warm. Must not know how results are
shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cgnetd.datapath.compile import Image, compile_image
from cgnetd.datapath.label import Label, pack_entry, pack_label
from cgnetd.kernel import features
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import Action, Flow, Hook, Protocol
from support import sandbox
from support.enforce import Enforcement
from support.verdict_program import Asked, VerdictProgram

CHAINS = (1, 2, 5, 10, 26)
RULES = (1, 1_000)
_FLOWS = 32  # as many as the test program takes
_REPEAT = 2_000
_TURNS = 9
_GOVERNED, _QUIET = 1 << 40, 1 << 41  # ids of no cgroup


def measure(objects: Path) -> dict[str, Any]:
    """Nanoseconds a verdict, best of some turns, less those where nothing governs; by rules and policies."""
    return {str(rules): {str(chain): _verdict_ns(objects, chain, rules) for chain in CHAINS} for rules in RULES}


def _verdict_ns(objects: Path, policies: int, rules: int) -> float:
    with _program(objects, policies, rules) as program:
        idle, judged = _asked(_QUIET), _asked(_GOVERNED)
        assert all(verdict.judged and not verdict.denied for verdict in program.ask(judged))
        floor = min(program.time(idle, _REPEAT) for _ in range(_TURNS))
        return round(min(program.time(judged, _REPEAT) for _ in range(_TURNS)) - floor, 1)


@contextmanager
def _program(objects: Path, policies: int, rules: int) -> Iterator[VerdictProgram]:
    """In force: an image of that size, and the labels of two cgroups that need not be there."""
    with ExitStack() as stack:
        cgroup = stack.enter_context(sandbox.cgroup())
        pins = stack.enter_context(sandbox.bpffs_mount())
        enforcement = stack.enter_context(Enforcement(cgroup.path, pins / "cgnetd", objects))
        image = _image(policies, rules)
        labels = {_GOVERNED: Label(0, tuple(range(policies))), _QUIET: Label(0)}
        enforcement.put(0, image)
        enforcement.store.set_labels({at: pack_entry([pack_label(label, 1), None]) for at, label in labels.items()})
        enforcement.store.activate(0)
        yield stack.enter_context(VerdictProgram(enforcement.store, features.probe(), objects))


def _image(policies: int, rules: int) -> Image:
    text = "---\n".join(_policy(number, rules, last=number == policies - 1) for number in range(policies))
    result = parse([Source("bench.yaml", text.encode())], read_set=lambda _: b"", find_user=lambda _: 0)
    assert result.policy_set, result.problems
    return compile_image(result.policy_set, default_action=Action.DENY, generation=1)


def _policy(number: int, rules: int, *, last: bool) -> str:
    """No rule matches port 1; each policy has other ports, so that no two share their tables."""
    lines = "".join(
        f"    - {{action: deny, to: [10.{n // 256}.{n % 256}.0/24], ports: [{100 + number + 60 * n}]}}\n"
        for n in range(rules)
    )
    head = (
        f"apiVersion: cgnetd/v1\nkind: Policy\nmetadata: {{name: p{number:02}}}\nspec:\n  subject: {{cgroups: [/x]}}\n"
    )
    return f"{head}  default: {{egress: {'allow' if last else 'pass'}}}\n  egress:\n{lines}"


def _asked(cgroup_id: int) -> list[Asked]:
    """Destinations spread over the rules."""
    addresses = [10 << 24 | (n * 31) << 8 | 7 for n in range(_FLOWS)]
    return [Asked(Flow(Hook.SENDMSG, Protocol.UDP, 4, address, 1), cgroup_id) for address in addresses]
