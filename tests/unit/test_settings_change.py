# SPDX-License-Identifier: Apache-2.0
"""What a running daemon takes of other settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from cgnetd.service.settings import Settings
from cgnetd.service.settings_change import LIVE, change

SECOND = 10**9
DOCUMENTS = (Path("config/cgnetd.yaml"), Path("packaging/man/cgnetd.yaml.5"))
TOP = Path(__file__).parents[2]


def test_same_settings_change_nothing() -> None:
    running = Settings()
    found = change(running, Settings())
    assert (found.settings, found.taken, found.waiting) == (running, (), ())


def test_what_can_change_does_and_the_rest_waits_by_name() -> None:
    wanted = Settings.model_validate(
        {
            "policy_dirs": ["/a"],
            "pin_dir": "/b",
            "control_group": None,
            "audit": {"sink": "stdout", "window": "1s"},
            "limits": {"flows": 1024, "reconcile_interval": "1s"},
        }
    )
    found = change(Settings(), wanted)
    assert found.taken == ("audit.window", "limits.reconcile_interval", "policy_dirs")
    assert found.waiting == ("audit.sink", "control_group", "limits.flows", "pin_dir")
    expected = {"policy_dirs": ["/a"], "audit": {"window": "1s"}, "limits": {"reconcile_interval": "1s"}}
    assert found.settings == Settings.model_validate(expected)


def test_what_waits_goes_on_waiting_until_it_is_taken_back() -> None:
    wanted = Settings(pin_dir="/b")
    once = change(Settings(), wanted)
    assert change(once.settings, wanted).waiting == ("pin_dir",)
    assert change(once.settings, Settings()).waiting == ()


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_documents_name_every_setting_that_changes_at_once(document: Path) -> None:
    text = (TOP / document).read_text(encoding="utf-8")
    told = " ".join(line for line in text.partition("reload cgnetd")[2].splitlines()[:6])
    assert [key for key in LIVE if key not in told] == []
