# SPDX-License-Identifier: Apache-2.0
"""Work done in other network namespaces, and congestion controls looked for."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from cgnetd.kernel import congestion, netns
from support.netns import private_netns

pytestmark = pytest.mark.usefixtures("no_fd_leaks")


def inode() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


def test_cookie_tells_namespaces_apart() -> None:
    here = netns.cookie()
    with private_netns() as one, private_netns() as other:
        cookies = {here, one.call(netns.cookie), other.call(netns.cookie)}
        assert len(cookies) == 3
        assert one.call(netns.cookie) in cookies
    assert netns.cookie() == here


def test_each_namespace_is_entered_once_and_the_caller_stays() -> None:
    before, threads = inode(), threading.active_count()
    with private_netns() as one:
        wanted = one.path.stat().st_ino
        assert list(netns.each([netns.OWN, one.path, one.path, netns.OWN], inode)) == [before, wanted]
    assert inode() == before
    assert threading.active_count() == threads


def test_namespace_that_is_gone_is_passed_over() -> None:
    with private_netns() as gone:
        pass
    assert list(netns.each([gone.path, Path("/proc/4194305/ns/net")], inode)) == []


def test_what_is_no_namespace_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="setns"):
        list(netns.each([tmp_path / "file"], inode))


def test_error_in_the_namespace_comes_out() -> None:
    def fail() -> int:
        raise ValueError("in there")

    with private_netns() as one, pytest.raises(ValueError, match="in there"):
        one.call(fail)


def test_socket_stays_in_the_namespace_it_was_made_in() -> None:
    def listening(port: int = 0) -> socket.socket:
        return socket.create_server(("127.0.0.1", port))

    with private_netns() as one, private_netns() as other, one.call(listening) as inside:
        with other.call(lambda: listening(inside.getsockname()[1])) as outside:
            assert outside.getsockname() == inside.getsockname()
        with pytest.raises(OSError, match="in use"):
            one.call(lambda: listening(inside.getsockname()[1]))


@pytest.mark.parametrize(("name", "there"), [("reno", True), ("cubic", True), ("nope", False), ("x" * 16, False)])
def test_congestion_control_is_looked_for(name: str, there: bool) -> None:
    assert congestion.available(name) is there


@pytest.mark.parametrize("name", ["", "reno\0", "reno\n"])
def test_what_can_name_no_congestion_control_is_not_there(name: str) -> None:
    assert not congestion.available(name)
