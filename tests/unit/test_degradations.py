# SPDX-License-Identifier: Apache-2.0
"""What a kernel cannot do of what policies ask for: refused where it would let calls pass, told otherwise."""

from __future__ import annotations

import dataclasses

import pytest
from policy_text import parse_good

from cgnetd.errors import Problem
from cgnetd.kernel.features import Features
from cgnetd.service.degraded import degradations, refusals

ALL = Features(*(True,) * len(dataclasses.fields(Features)))
POLICY = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: app}
spec:
  subject: {cgroups: ["/app"]}
"""
UNIX = POLICY + "  egress: [{name: u, action: deny, unix: [any]}]\n"
ERRNOS = POLICY + "  egress: [{name: x, action: deny, errno: EHOSTUNREACH}, {name: z, action: deny}]\n"
REDIRECT = POLICY + "  egress: [{name: r, action: redirect, to: [192.0.2.1], redirect: {to: [127.0.0.1]}}]\n"
UDP_REDIRECT = REDIRECT.replace("name: r,", "name: r, protocols: [udp],")
TCP = POLICY + "  tcp: {congestion: bbr, initialWindow: 20}\n"
SERVICE = """\
apiVersion: cgnetd/v1
kind: Service
metadata: {name: db}
spec: {addresses: [192.0.2.9], ports: [{port: 80}], backends: [{address: 10.0.0.1}]}
"""


def found(text: str, *, has_congestion: bool = True, **lacking: bool) -> tuple[Problem, ...]:
    return degradations(parse_good(text), dataclasses.replace(ALL, **lacking), lambda _: has_congestion)


@pytest.mark.parametrize("text", [UNIX, ERRNOS, REDIRECT, TCP, SERVICE])
def test_kernel_that_has_all_weakens_nothing(text: str) -> None:
    assert found(text) == ()
    assert refusals(parse_good(text), ALL) == ()


def test_unix_rules_are_refused_where_the_kernel_has_no_hooks_for_them() -> None:
    (problem,) = refusals(parse_good(UNIX), dataclasses.replace(ALL, unix_hooks=False))
    assert (problem.line, problem.key) == (6, "unix")
    assert problem.message.startswith("policy app rule u: this kernel has no programs on UNIX sockets (Linux 6.7")
    assert refusals(parse_good(REDIRECT), dataclasses.replace(ALL, unix_hooks=False)) == ()


def test_errno_that_this_kernel_cannot_give_is_told_with_its_place() -> None:
    (problem,) = found(ERRNOS, set_retval=False)
    assert (problem.line, problem.key) == (6, "errno")
    assert problem.message == (
        "policy app rule x: this kernel denies with EPERM only (no bpf_set_retval), not EHOSTUNREACH"
    )


def test_errno_of_a_service_that_this_kernel_cannot_give_is_told() -> None:
    (problem,) = found(SERVICE, set_retval=False)
    assert problem.message == (
        "service db: without a backend alive, this kernel denies with EPERM only (no bpf_set_retval), not ECONNREFUSED"
    )


def test_congestion_control_that_the_kernel_lacks_is_told() -> None:
    (problem,) = found(TCP, has_congestion=False)
    assert (problem.key, problem.message) == (
        "spec.tcp.congestion",
        "policy app: this kernel has no congestion control bbr: connections keep the one they have",
    )


def test_tuning_without_programs_on_tcp_events_is_told() -> None:
    assert [problem.key for problem in found(TCP, sock_ops=False)] == ["spec.tcp"]


@pytest.mark.parametrize("lacking", ["sock_ops", "getsockopt"])
def test_proxies_that_cannot_ask_for_the_original_destination_are_told(lacking: str) -> None:
    (problem,) = found(REDIRECT, **{lacking: False})
    assert problem.message == "policy app rule r: this kernel cannot tell proxies SO_ORIGINAL_DST"
    assert found(UDP_REDIRECT, **{lacking: False}) == ()
