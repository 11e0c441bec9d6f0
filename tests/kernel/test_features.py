# SPDX-License-Identifier: Apache-2.0
"""What is found out of the kernel by doing, beside what the kernel says of itself in other ways."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from cgnetd.errors import KernelError
from cgnetd.kernel import features
from cgnetd.kernel.features import Features
from cgnetd.kernel.hooks import HOOKS

pytestmark = pytest.mark.usefixtures("no_fd_leaks")
NAMES = tuple(Features.__slots__)


@pytest.mark.parametrize(
    ("feature", "function"),
    [
        ("set_retval", "bpf_set_retval"),
        ("rdonly_cast", "bpf_rdonly_cast"),
        ("unix_hooks", "bpf_sock_addr_set_sun_path"),
        ("sock_destroy", "bpf_sock_destroy"),
    ],
)
def test_feature_is_found_where_the_kernel_has_its_function(
    kernel_features: Features, feature: str, function: str
) -> None:
    symbols = Path("/proc/kallsyms").read_text()
    assert getattr(kernel_features, feature) is bool(re.search(rf" {function}$", symbols, re.MULTILINE))


def test_kernel_that_can_be_used_at_all_has_the_old_hooks(kernel_features: Features) -> None:
    assert not set(kernel_features.missing()) & {"sock_ops", "getsockopt", *features.REQUIRED}


def test_every_feature_has_its_price() -> None:
    assert set(features.COSTS) == set(NAMES)
    assert set(features.REQUIRED) <= set(NAMES)


def lacking(*names: str) -> Features:
    return Features(**{name: name not in names for name in NAMES})


@pytest.mark.parametrize(
    ("missing", "hooks"),
    [
        ((), set[str]()),
        (("set_retval", "sock_destroy"), set[str]()),
        (("sock_ops",), {"sock_ops"}),
        (("getsockopt", "sock_ops"), {"getsockopt", "sock_ops"}),
        (("unix_hooks",), {name for name in HOOKS if name.endswith("_unix")}),
    ],
)
def test_lacking_hooks_are_named(missing: tuple[str, ...], hooks: set[str]) -> None:
    found = lacking(*missing)
    assert found.lacking_hooks() == hooks
    assert found.lacking_hooks() <= set(HOOKS)
    assert set(found.missing()) == set(missing)


def test_required_features_are_named_with_their_price() -> None:
    features.require(lacking("unix_hooks", "sock_destroy"))
    with pytest.raises(KernelError, match="ringbuf: no enforcement"):
        features.require(lacking("ringbuf"))


def test_programs_are_told_what_was_found() -> None:
    told = lacking("set_retval").rodata()
    assert (told["cgn_has_set_retval"], told["cgn_has_rdonly_cast"]) == (0, 1)
    assert told["cgn_hz"] == features.ticks_a_second()


def jiffies() -> int:
    found = re.search(r"^jiffies: (\d+)$", Path("/proc/timer_list").read_text(), re.MULTILINE)
    assert found
    return int(found.group(1))


def test_ticks_are_those_of_the_kernel() -> None:
    """They are counted within a time that is known to be no shorter, and no longer, than so much."""
    times = [time.monotonic()]
    before = jiffies()
    times.append(time.monotonic())
    time.sleep(0.5)
    times.append(time.monotonic())
    ticks = jiffies() - before
    times.append(time.monotonic())
    longest_s, shortest_s = times[3] - times[0], times[2] - times[1]
    assert 0.9 * ticks / longest_s < features.ticks_a_second() < 1.1 * ticks / shortest_s
