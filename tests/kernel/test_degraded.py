# SPDX-License-Identifier: Apache-2.0
"""What a kernel without bpf_set_retval() gets: the same verdicts, EPERM whatever errno a rule names.

The programs are told that the kernel lacks it, as they are on such a kernel; the verifier removes the calls.
"""

from __future__ import annotations

import dataclasses
import errno
import socket
from pathlib import Path

import pytest

from cgnetd.datapath.compile import compile_image
from cgnetd.kernel import features
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import Action
from support.enforce import Enforcement
from support.sandbox import PrivateCgroup

pytestmark = pytest.mark.usefixtures("no_fd_leaks")
POLICY = b"""
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: app}
spec:
  subject: {cgroups: ["/app"]}
  egress: [{action: deny, errno: EHOSTUNREACH}]
"""


@pytest.mark.parametrize("has_it", [True, False])
def test_deny_is_eperm_where_the_kernel_cannot_set_another(
    private_cgroup: PrivateCgroup,
    pin_dir: Path,
    objects: Path,
    monkeypatch: pytest.MonkeyPatch,
    has_it: bool,
) -> None:
    found = dataclasses.replace(features.probe(), set_retval=has_it)
    monkeypatch.setattr(features, "probe", lambda: found)
    app = private_cgroup.child("app")
    result = parse([Source("a.yaml", POLICY)], read_set=lambda _: b"", find_user=lambda _: 0)
    assert result.policy_set

    def call() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            return made.connect_ex(("127.0.0.1", 9))

    with Enforcement(private_cgroup.path, pin_dir, objects) as enforcement:
        enforcement.load(compile_image(result.policy_set, default_action=Action.ALLOW, generation=1))
        assert app.call(call) == (errno.EHOSTUNREACH if has_it else errno.EPERM)
