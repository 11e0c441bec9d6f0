# SPDX-License-Identifier: Apache-2.0
"""Random policies and random calls with real sockets of processes in real cgroups: fewer, with nothing in between."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cgnetd.datapath.compile import compile_image
from cgnetd.policy.evaluate import judge
from cgnetd.policy.select import select
from cgnetd.policy.types import Action, PolicySet
from support import sandbox
from support.caller import Caller
from support.cases import Call, Endpoint
from support.enforce import Enforcement
from support.flows import judged
from support.judge import components
from support.random_policies import policy_sets, random_path

SETS = int(os.environ.get("CGNETD_DIFFERENTIAL_SOCKET_SETS", "6"))
CALLS_A_SET = 60
EPERM, EPROTO, EILSEQ = 1, 71, 84
RULE_ERRNOS = (EPROTO, EILSEQ)  # nothing in a network answers with these
HOSTS = {
    4: ("10.0.0.1", "10.1.2.3", "10.1.2.4", "10.1.3.1", "10.2.0.1", "192.0.2.1", "192.0.3.1", "127.0.0.1", "0.0.0.0"),
    6: ("2001:db8::1", "2001:db8:1::1", "2001:db9::1", "::1", "::", "::ffff:10.1.2.3", "::ffff:192.0.2.1"),
}
ADDRESSES = [host for host in (*HOSTS[4], *HOSTS[6]) if not host.startswith(("127.", "0.", "::"))]
PORTS = (1, 53, 79, 80, 90, 91, 443, 444, 1024, 40000, 65535)


def random_call(source: random.Random, cgroups: list[str]) -> Call:
    family = source.choice((4, 6))
    call, stems = source.choice((("connect", "tcp udp mptcp"), ("sendto", "udp"), ("bind", "tcp udp")))
    port = 0 if call == "bind" and source.random() < 0.4 else source.choice(PORTS)
    other = source.choice([None, *cgroups])
    return Call(
        name="random",
        cgroup=source.choice(cgroups),
        call=call,
        via=f"{source.choice(stems.split())}{family}",
        to=(Endpoint(source.choice(HOSTS[family]), port),),
        expect=0,
        network=(EPERM,),
        first=None,
        source=None,
        socket_cgroup=other,
        passing=source.choice(("scm", "moved")) if other else "scm",
        options=("v6only",) if family == 6 and call == "bind" and source.random() < 0.3 else (),
        isolate=(),
        device=None,
        pktinfo=None,
        rule=None,
        shadow=None,
        shadow_rule=None,
        rows=(),
    )


def expected(policies: PolicySet, call: Call) -> int:
    """The errno of the first step of the call that the reference denies, 0 if it denies none."""
    for step in judged(call):
        task = select(policies, components(step.task))
        socket = select(policies, components(step.socket)) if step.socket else None
        denied = judge(task, socket, step.flow, Action.ALLOW).enforced.errno
        if denied:
            return denied
    return 0


@pytest.fixture(scope="module", autouse=True)
def _ip() -> None:
    if shutil.which("ip") is None:
        pytest.skip("no ip command; install it: apt-get install iproute2")


@settings(
    max_examples=SETS,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(policies=policy_sets(errnos=RULE_ERRNOS), seed=st.integers(0, 2**32))
def test_sockets_agree_with_reference(objects: Path, policies: PolicySet, seed: int) -> None:
    source = random.Random(seed)
    cgroups = sorted({"/" + "/".join(random_path(source)) for _ in range(6)})
    with (
        sandbox.cgroup() as cgroup,
        sandbox.bpffs_mount() as bpffs,
        Enforcement(cgroup.path, bpffs / "cgnetd", objects) as enforcement,
        Caller(cgroup.path, ADDRESSES) as caller,
    ):
        for path in cgroups[::2]:
            cgroup.child(path.lstrip("/"))
        enforcement.load(compile_image(policies, default_action=Action.ALLOW, generation=1))
        for path in cgroups:
            cgroup.child(path.lstrip("/"))
        for _ in range(CALLS_A_SET):
            call = random_call(source, cgroups)
            denied, got = expected(policies, call), caller.call(call)
            assert got == denied if denied else got not in (*RULE_ERRNOS, EPERM), call
