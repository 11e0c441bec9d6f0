# SPDX-License-Identifier: Apache-2.0
"""Object files, programs, links and ring buffers of the bindings on the running kernel."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pybpf import AttachType, BpfError, Link, LinkType, Map, Object, Program, ProgType, RingBuffer, instruction
from pybpf import probe as bpf_probe
from support.sandbox import PrivateCgroup

pytestmark = pytest.mark.usefixtures("no_fd_leaks")
PACKET = bytes(64)


@pytest.fixture(scope="session")
def sample(compile_bpf: Callable[[str], Path]) -> Path:
    return compile_bpf("sample")


def only(opened: Object, *names: str) -> None:
    for name, program in opened.programs.items():
        program.set_autoload(name in names)


class Loaded:
    """Some programs of the sample, loaded, with its maps."""

    def __init__(self, path: Path, *names: str, rodata: dict[str, int] | None = None) -> None:
        self._stack = ExitStack()
        with Object(path) as opened:
            only(opened, *names)
            opened.set_rodata(rodata or {})
            opened.load()
            self.programs = {name: self._stack.enter_context(opened.programs[name].open()) for name in names}
            self.cells: Map = self._stack.enter_context(opened.maps["sample_cells"].open())
            self.ring: Map = self._stack.enter_context(opened.maps["sample_ring"].open())

    def cell(self, number: int) -> int:
        return int.from_bytes(self.cells.lookup(number.to_bytes(4, "little")) or b"", "little")

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def load(sample: Path) -> Iterator[Callable[..., Loaded]]:
    with ExitStack() as stack:

        def loader(*names: str, rodata: dict[str, int] | None = None) -> Loaded:
            made = Loaded(sample, *names, rodata=rodata)
            stack.callback(made.close)
            return made

        yield loader


@pytest.fixture
def cgroup_fd(private_cgroup: PrivateCgroup) -> Iterator[int]:
    fd = os.open(private_cgroup.path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def connect_errno() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        return udp.connect_ex(("127.0.0.1", 9))


def test_read_only_data_reaches_the_program(load: Callable[..., Loaded]) -> None:
    loaded = load("sample_answer", rodata={"sample_limit": 40, "sample_flag": 2, "not_there": 1})
    assert loaded.programs["sample_answer"].test_run(PACKET).retval == 42


def test_read_only_data_tells_which_names_it_has(sample: Path) -> None:
    with Object(sample) as opened:
        assert opened.set_rodata({"sample_limit": 1, "not_there": 1}) == {"sample_limit"}


def test_test_run_repeats(load: Callable[..., Loaded]) -> None:
    loaded = load("sample_answer")
    run = loaded.programs["sample_answer"].test_run(PACKET, repeat=10)
    assert run.retval == 7
    assert run.data == PACKET
    assert loaded.cell(0) == 10


def test_definition_of_a_map_is_told(sample: Path) -> None:
    with Object(sample) as opened:
        cells = opened.maps["sample_cells"]
        assert (cells.type, cells.key_size, cells.value_size, cells.max_entries) == (2, 4, 8, 4)
        assert cells.flags == 1 << 10
        assert cells.inner is None


def test_reused_map_is_used_by_the_program(load: Callable[..., Loaded], sample: Path) -> None:
    first = load("sample_answer")
    with Object(sample) as opened:
        only(opened, "sample_answer")
        opened.maps["sample_cells"].reuse(first.cells)
        opened.load()
        with opened.programs["sample_answer"].open() as program:
            program.test_run(PACKET)
            assert first.cells.info.id in program.info.map_ids
    assert first.cell(0) == 1


def test_unknown_section_loads_with_its_type_set(sample: Path) -> None:
    with Object(sample) as opened:
        only(opened, "sample_unknown")
        opened.programs["sample_unknown"].set_type(ProgType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_BIND)
        opened.load()
        with opened.programs["sample_unknown"].open() as program:
            assert program.info.type == ProgType.CGROUP_SOCK_ADDR
            assert program.attach_type == AttachType.CGROUP_INET4_BIND


def test_rejected_program_carries_the_verifiers_log(
    load: Callable[..., Loaded], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BpfError) as caught:
        load("sample_rejected")
    assert caught.value.call == "bpf_object__load"
    assert "invalid mem access" in caught.value.log
    assert capfd.readouterr().err == ""


def test_missing_object_names_the_call(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BpfError, match="bpf_object__open_file: No such file"):
        Object(tmp_path / "none.bpf.o")
    assert capfd.readouterr().err == ""


def test_log_of_one_failure_is_not_in_the_next(tmp_path: Path) -> None:
    (tmp_path / "bad.bpf.o").write_bytes(b"no object")
    with pytest.raises(BpfError) as first:
        Object(tmp_path / "bad.bpf.o")
    with pytest.raises(BpfError) as second:
        Map.from_id(2**31)
    assert first.value.log
    assert second.value.log == ""


def test_cgroup_link_denies_inside_only(
    load: Callable[..., Loaded], private_cgroup: PrivateCgroup, cgroup_fd: int
) -> None:
    loaded = load("sample_deny")
    assert private_cgroup.call(connect_errno) == 0
    with Link.attach_cgroup(loaded.programs["sample_deny"], cgroup_fd, AttachType.CGROUP_INET4_CONNECT) as link:
        info = link.info()
        assert (info.type, info.cgroup_id) == (LinkType.CGROUP, private_cgroup.id)
        assert info.prog_id == loaded.programs["sample_deny"].info.id
        assert private_cgroup.call(connect_errno) == errno.EPERM
        assert connect_errno() == 0
    assert private_cgroup.call(connect_errno) == 0
    assert loaded.cell(2) == 1


def test_update_replaces_the_program(
    load: Callable[..., Loaded], private_cgroup: PrivateCgroup, cgroup_fd: int
) -> None:
    loaded = load("sample_deny", "sample_allow")
    with Link.attach_cgroup(loaded.programs["sample_deny"], cgroup_fd, AttachType.CGROUP_INET4_CONNECT) as link:
        link.update(loaded.programs["sample_allow"])
        assert private_cgroup.call(connect_errno) == 0
        assert link.info().prog_id == loaded.programs["sample_allow"].info.id


def test_update_refuses_a_program_of_another_hook(load: Callable[..., Loaded], cgroup_fd: int) -> None:
    loaded = load("sample_deny", "sample_bind")
    with Link.attach_cgroup(loaded.programs["sample_deny"], cgroup_fd, AttachType.CGROUP_INET4_CONNECT) as link:
        with pytest.raises(ValueError, match="attach type 8"):
            link.update(loaded.programs["sample_bind"])
        with (
            Program.from_id(loaded.programs["sample_deny"].info.id) as unknown,
            pytest.raises(ValueError, match="None"),
        ):
            link.update(unknown)
        assert link.info().prog_id == loaded.programs["sample_deny"].info.id


def test_detached_link_is_dead(load: Callable[..., Loaded], private_cgroup: PrivateCgroup, cgroup_fd: int) -> None:
    loaded = load("sample_deny")
    with Link.attach_cgroup(loaded.programs["sample_deny"], cgroup_fd, AttachType.CGROUP_INET4_CONNECT) as link:
        link.detach()
        assert link.info().cgroup_id == 0
        assert private_cgroup.call(connect_errno) == 0
        with pytest.raises(BpfError) as caught:
            link.update(loaded.programs["sample_deny"])
        assert caught.value.errno == errno.ENOLINK


def test_pinned_link_outlives_its_descriptor(
    load: Callable[..., Loaded], private_cgroup: PrivateCgroup, cgroup_fd: int, bpffs: Path
) -> None:
    loaded = load("sample_deny")
    with Link.attach_cgroup(loaded.programs["sample_deny"], cgroup_fd, AttachType.CGROUP_INET4_CONNECT) as link:
        link.pin(bpffs / "link")
        link_id = link.info().id
    assert private_cgroup.call(connect_errno) == errno.EPERM
    with Link.from_pin(bpffs / "link") as again:
        assert again.info().id == link_id
    with pytest.raises(BpfError, match="is not a map"):
        Map.from_pin(bpffs / "link")
    (bpffs / "link").unlink()
    assert private_cgroup.call(connect_errno) == 0


def test_raw_tracepoint_link_sees_new_cgroups(load: Callable[..., Loaded], private_cgroup: PrivateCgroup) -> None:
    loaded = load("sample_mkdir")
    with Link.attach_raw_tracepoint(loaded.programs["sample_mkdir"]) as link:
        assert link.info().tracepoint == "cgroup_mkdir"
        before = loaded.cell(3)
        private_cgroup.child("new")
        assert loaded.cell(3) > before


def test_ring_hands_over_every_record(load: Callable[..., Loaded]) -> None:
    loaded = load("sample_answer")
    seen: list[bytes] = []
    with RingBuffer(loaded.ring, seen.append) as ring:
        loaded.programs["sample_answer"].test_run(PACKET, repeat=5)
        assert ring.epoll_fd > 0
        assert ring.consume(limit=2) == 2
        assert len(seen) == 2
        assert ring.consume() == 3
        assert ring.consume() == 0
    assert seen == [(7).to_bytes(8, "little")] * 5


def test_exception_of_the_callback_comes_out(load: Callable[..., Loaded]) -> None:
    loaded = load("sample_answer")
    seen: list[bytes] = []

    def fussy(record: bytes) -> None:
        seen.append(record)
        if len(seen) == 1:
            raise LookupError("no")

    with RingBuffer(loaded.ring, fussy) as ring:
        loaded.programs["sample_answer"].test_run(PACKET, repeat=3)
        with pytest.raises(LookupError, match="no"):
            ring.consume()
        assert ring.consume() == 2


def test_instructions_rejected_carry_the_log() -> None:
    with pytest.raises(BpfError, match="R0 !read_ok"):
        Program.from_instructions(ProgType.SOCKET_FILTER, [instruction(0x95)])


def test_probe_says_no_to_what_no_kernel_has() -> None:
    code = [instruction(0x85, immediate=100_000), instruction(0x95)]
    with pytest.raises(BpfError):
        Program.from_instructions(ProgType.SOCKET_FILTER, code)
    assert bpf_probe.has_sock_addr()
    assert bpf_probe.has_ringbuf()


def test_program_tells_its_size() -> None:
    """As many instructions as were loaded: the verifier adds none to these. Machine code, if the kernel makes any."""
    code = (*[instruction(0xB7, immediate=1)] * 3, instruction(0x95))
    with Program.from_instructions(ProgType.SOCKET_FILTER, code) as program:
        assert program.info.instructions == len(code)
        compiled = Path("/proc/sys/net/core/bpf_jit_enable").read_text(encoding="ascii").strip() != "0"
        assert (program.info.machine_code_bytes > 0) == compiled
