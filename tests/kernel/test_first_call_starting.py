# SPDX-License-Identifier: Apache-2.0
"""The first call of the first process of a new cgroup is judged, while the daemon labels all cgroups anew."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path

import pytest

from support import first_call
from support.first_call import Start, first_calls, governed

OTHERS = """
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: others}
spec:
  subject: {units: ["*-other.service"]}
  tier: admin
  egress: [{name: shut, action: deny}]
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return first_call.build(tmp_path_factory.mktemp("native"))


def test_first_call_is_denied_while_daemon_starts_again(program: Path, tmp_path: Path, objects: Path) -> None:
    """With other policies than before, so that cgroups are made while all of them get new labels."""
    with governed(tmp_path, objects) as (root, daemon):

        def restart() -> None:
            daemon.kill()
            daemon.write_policy("a-others.yaml", OTHERS)
            daemon.start(object_dir=objects)

        thread = threading.Thread(target=restart)
        thread.start()
        worker, calls = Start("", "worker.service", "clone", 1, errno.EACCES), 0
        while thread.is_alive() or calls < 200:
            began_at = time.monotonic()
            assert first_calls(program, root, worker, 50) == {"calls": 50, str(errno.EACCES): 50}
            calls += 50
            thread.join(3 * (time.monotonic() - began_at))  # it has to get on where there is one slow CPU
        assert daemon.ask("status")["generation"] > 1
