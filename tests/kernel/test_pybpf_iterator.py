# SPDX-License-Identifier: Apache-2.0
"""Iterators of the bindings: over the sockets of a namespace, over the entries of a map."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pybpf import BpfError, Link, LinkType, Map, MapFlag, MapType, Object, Program
from support.netns import private_netns

pytestmark = pytest.mark.usefixtures("no_fd_leaks")


@pytest.fixture(scope="session")
def sample(compile_bpf: Callable[[str], Path]) -> Path:
    return compile_bpf("sample")


@pytest.fixture
def load(sample: Path) -> Iterator[Callable[[str], tuple[Program, Map]]]:
    """A program of the sample, and its storage map."""
    with ExitStack() as stack:

        def loader(name: str) -> tuple[Program, Map]:
            with Object(sample) as opened:
                for other, program in opened.programs.items():
                    program.set_autoload(other == name)
                opened.load()
                storage = stack.enter_context(opened.maps["sample_sockets"].open())
                return stack.enter_context(opened.programs[name].open()), storage

        yield loader


def bound() -> socket.socket:
    """A UDP socket, bound to a port of the loopback device."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    return made


def test_iterator_sees_the_sockets_of_the_threads_namespace(load: Callable[[str], tuple[Program, Map]]) -> None:
    program, _ = load("sample_udp")
    with Link.attach_iterator(program) as link, private_netns() as place:
        assert link.info().type == LinkType.ITER
        assert place.call(link.iterate) == b""
        with place.call(bound), place.call(bound):
            assert place.call(link.iterate) == b"uu"
            assert place.call(link.iterate) == b"uu"
        assert place.call(link.iterate) == b""


def test_iterator_over_a_map_sees_its_entries_in_every_namespace(load: Callable[[str], tuple[Program, Map]]) -> None:
    program, storage = load("sample_storage")
    with private_netns() as place, bound() as here, place.call(bound) as there:
        for number, flow in enumerate((here, there)):
            storage.update(flow.fileno().to_bytes(4, "little"), number.to_bytes(8, "little"))
        with Link.attach_iterator(program, storage) as link:
            assert sorted(memoryview(link.iterate()).cast("Q")) == [0, 1]


def test_iterator_over_many_entries_is_read_to_the_end(load: Callable[[str], tuple[Program, Map]]) -> None:
    program, storage = load("sample_storage")
    with ExitStack() as stack:
        for number in range(900):
            flow = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            storage.update(flow.fileno().to_bytes(4, "little"), number.to_bytes(8, "little"))
        with Link.attach_iterator(program, storage) as link:
            assert sorted(memoryview(link.iterate()).cast("Q")) == list(range(900))


def test_iterator_over_a_map_needs_one(load: Callable[[str], tuple[Program, Map]]) -> None:
    program, _ = load("sample_storage")
    with pytest.raises(BpfError, match="bpf_link_create"):
        Link.attach_iterator(program)
    with (
        Map.create(MapType.ARRAY, "t_array", key_size=4, value_size=8, max_entries=1, flags=MapFlag.NONE) as other,
        pytest.raises(BpfError, match="bpf_link_create"),
    ):
        Link.attach_iterator(program, other)
