# SPDX-License-Identifier: Apache-2.0
"""What it costs to be sent elsewhere: by a rule, by a service, by nftables and conntrack, by a proxy, or not at all.

Every setting has a network namespace and a cgroup of its own, and asks there for an address that leads to a server in
the same process; "direct" asks for the server itself, with no program attached, and so do the rivals' turns. "allowed"
is direct too, under rules that allow it, while other cgroups are redirected. Must not know how results are shown.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import build, rivals
from bench.calls import PARTS, foreign_programs, needed_hooks
from bench.floor import neighbours
from bench.turns import Worker, paired
from cgnetd.datapath.compile import Image, compile_image
from cgnetd.kernel.hooks import HOOKS
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import Action
from support import native, sandbox
from support.enforce import Enforcement
from support.netns import PrivateNetns, private_netns
from support.sandbox import PrivateCgroup

SERVER = ("127.0.0.1", 21_000)
ASKED = ("127.0.0.2", 80)  # nobody listens there but the proxy
SERVER_NAME, ASKED_NAME = "cgnetd-bench-server", "cgnetd-bench-asked"
DIRECT, DNAT, PROXY = "direct", "nftables", "haproxy"
REDIRECTED = "redirect, 1000 rules"  # what the goals are about

TCP = {"tcp-cycle": 1_000, "tcp-connect": 1_000, "tcp-exchange": 2_000, "tcp-mib": 50}
UDP = {"udp-cycle": 2_500, "udp-send": 5_000}
EXCHANGE = {"udp-exchange": 2_500}
UNIX = {"unix-cycle": 2_500}
OPERATIONS = {**TCP, **UDP, **EXCHANGE, **UNIX}  # name -> how many a turn


@dataclass(frozen=True, slots=True)
class Setting:
    operations: Mapping[str, int]
    subject: str = "none"  # the cgroup, and the policy on it if there is one
    asks: bool = True  # for ASKED; else for the server itself
    enforced: bool = True  # with our programs attached


# A server that has four addresses answers datagrams from one of them only: no exchange with a service.
SETTINGS = {
    DIRECT: Setting(OPERATIONS, asks=False, enforced=False),
    "allowed, 1000 rules": Setting(OPERATIONS, "allowed", asks=False),
    "redirect, 1 rule": Setting(OPERATIONS, "one"),
    REDIRECTED: Setting(OPERATIONS, "many"),
    "service, 4 backends": Setting({**TCP, **UDP}, "service"),
    "service, sticky": Setting({**TCP, **UDP}, "sticky"),
    DNAT: Setting({**TCP, **UDP, **EXCHANGE}, enforced=False),
    PROXY: Setting({name: count // 5 for name, count in TCP.items()}, enforced=False),
}
_NEEDED = {DNAT: "nft", PROXY: "haproxy"}

_HEAD = "apiVersion: cgnetd/v1\nkind: Policy\nmetadata: {{name: {name}}}\nspec:\n  subject: {{cgroups: [/{name}]}}\n"
_SERVICE = """\
apiVersion: cgnetd/v1
kind: Service
metadata: {{name: {name}}}
spec:
  addresses: [{address}]
  ports: [{{port: {port}, protocol: tcp}}, {{port: {port}, protocol: udp}}]
  backends: [{backends}]
  balance: {balance}
"""


def policies() -> bytes:
    """Of all cgroups. A service's virtual address is its own: both are asked for at ASKED by different policies."""
    redirect = (
        f"    - {{action: redirect, to: [{ASKED[0]}], ports: [{ASKED[1]}],"
        f' redirect: {{to: ["{SERVER[0]}:{SERVER[1]}"]}}}}\n'
        f'    - {{action: redirect, unix: ["@{ASKED_NAME}"], redirect: {{unix: "@{SERVER_NAME}"}}}}\n'
    )
    allow = f'    - {{action: allow, to: [127.0.0.0/8]}}\n    - {{action: allow, unix: ["@{SERVER_NAME}"]}}\n'
    documents = [
        _policy("allowed", _others() + allow),
        _policy("one", redirect),
        _policy("many", _others() + redirect),
        *_service("service", "random"),
        *_service("sticky", "sticky"),
    ]
    return "---\n".join(documents).encode()


def _policy(name: str, rules: str) -> str:
    return f"{_HEAD.format(name=name)}  egress:\n{rules}"


def _others() -> str:
    """Rules before the one that counts, which a target is held against too."""
    return "".join(
        f"    - {{action: deny, to: [10.{n // 256}.{n % 256}.0/24], ports: [{1 + n * 7}-{6 + n * 7}]}}\n"
        for n in range(999)
    )


def _service(name: str, balance: str) -> Iterator[str]:
    """A service at an address that nobody asks for, and a policy that redirects to its backends."""
    backends = ", ".join(f"{{address: 127.0.0.{n}, port: {SERVER[1]}}}" for n in (1, 11, 12, 13))
    address = {"random": "192.0.2.1", "sticky": "192.0.2.2"}[balance]
    yield _SERVICE.format(name=name, address=address, port=ASKED[1], backends=backends, balance=balance)
    rule = f'    - {{action: redirect, to: [{ASKED[0]}], ports: [{ASKED[1]}], redirect: {{to: ["service:{name}"]}}}}\n'
    yield _policy(name, rule)


def image() -> Image:
    result = parse([Source("bench.yaml", policies())], read_set=lambda _: b"", find_user=lambda _: 0)
    assert result.policy_set, result.problems
    return compile_image(result.policy_set, default_action=Action.ALLOW, generation=1)


def measure(scratch: Path, rounds: int) -> dict[str, Any]:
    """By operation and setting: nanoseconds (median), and the paired ratios to direct and to nftables."""
    foreign, program, compiled = foreign_programs(), native.build("detour", scratch), image()
    settings = [name for name in SETTINGS if not (name in _NEEDED and rivals.lacking(_NEEDED[name]))]
    with ExitStack() as stack:
        stack.enter_context(neighbours())
        tree = stack.enter_context(sandbox.cgroup())
        pins = stack.enter_context(sandbox.bpffs_mount())
        enforcement = stack.enter_context(Enforcement(tree.path, pins / "cgnetd", build.objects(scratch)))
        workers = {name: _worker(stack, name, program, tree, scratch) for name in settings}
        enforcement.load(compiled)
        turns = []
        for number in range(rounds):
            at = number % len(settings)  # what comes first changes
            turns.append(_round(enforcement, needed_hooks(compiled), workers, settings[at:] + settings[:at]))
    return {
        "rounds": rounds,
        "foreign_programs": foreign,
        "missing": {name: _NEEDED[name] for name in SETTINGS if name not in settings},
        "operations": {name: _summary(turns, name) for name in OPERATIONS},
    }


def _worker(stack: ExitStack, name: str, program: Path, tree: PrivateCgroup, scratch: Path) -> Worker:
    """The process of a setting, in a namespace where what the setting needs is there."""
    setting = SETTINGS[name]
    network = stack.enter_context(private_netns())
    if name == DNAT:
        rivals.dnat(network, ASKED, SERVER)
    worker = stack.enter_context(Worker(_command(program, setting, tree, network)))
    if name == PROXY:
        stack.enter_context(rivals.proxy(network, scratch, ASKED, SERVER))
    return worker


def _command(program: Path, setting: Setting, tree: PrivateCgroup, network: PrivateNetns) -> Sequence[str | Path]:
    (host, port), name = (ASKED, ASKED_NAME) if setting.asks else (SERVER, SERVER_NAME)
    enter = ["nsenter", f"--net={network.path}"]
    place = tree.child(setting.subject).path
    return [*enter, program, place, f"{host}:{port}", name, str(SERVER[1]), SERVER_NAME]


_Turn = dict[str, dict[str, float]]  # operation -> setting -> nanoseconds


def _round(enforcement: Enforcement, hooks: frozenset[str], workers: dict[str, Worker], order: list[str]) -> _Turn:
    found: _Turn = {name: {} for name in OPERATIONS}
    for name in order:
        setting = SETTINGS[name]
        if setting.enforced:
            enforcement.links.attach(hooks)
        else:
            enforcement.links.detach(HOOKS)
        for operation, count in setting.operations.items():
            workers[name].turn(operation, max(1, count // 10))
            found[operation][name] = min(workers[name].turn(operation, count // PARTS) for _ in range(PARTS))
    return found


def _summary(turns: list[_Turn], operation: str) -> dict[str, dict[str, Any]]:
    found = [turn[operation] for turn in turns]
    return {
        setting: {
            "ns": round(statistics.median(turn[setting] for turn in found), 1),
            "to_direct": paired(found, setting, DIRECT),
            "to_nftables": paired(found, setting, DNAT) if DNAT in found[0] else None,
        }
        for setting in SETTINGS
        if setting in found[0]
    }
