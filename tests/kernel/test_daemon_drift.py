# SPDX-License-Identifier: Apache-2.0
"""What somebody changes behind the daemon's back is put right, and told."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgnetd.kernel.hooks import HOOKS
from pybpf import Link, Map, Object
from support.governed import OPEN, SHUT, Governed, connect, eventually, governed
from support.sandbox import PrivateCgroup

DENIED = errno.EHOSTUNREACH


@pytest.fixture
def app(tmp_path: Path, private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path) -> Iterator[Governed]:
    """Running, with a pass five times a second."""
    with governed(tmp_path, private_cgroup, pin_dir, objects) as found:
        found.start("--set", "limits.reconcile_interval=200ms")
        yield found


def repaired(app: Governed) -> str:
    """What the daemon says it repaired; afterwards all is right again."""
    text = str(app.await_record("drift-repaired")["message"])
    eventually(lambda: app.daemon.ask("status")["enforcing"], "enforcement")
    assert (connect(app.app, OPEN), connect(app.app, SHUT)) == (0, DENIED)
    app.await_passes(3)
    assert len(app.records("drift-repaired")) == 1, "repaired once, and then at rest"
    return text


def open_map(app: Governed, name: str) -> Map:
    return Map.from_pin(app.pin_dir / "maps" / name)


def key_of(cgroup: PrivateCgroup) -> bytes:
    return cgroup.id.to_bytes(8, "little")


def test_detached_link_is_attached_again(app: Governed) -> None:
    with Link.from_pin(app.pin_dir / "links/connect4") as link:
        link.detach()
    assert "connect4" in repaired(app)


def test_foreign_program_in_a_link_is_thrown_out(app: Governed, objects: Path) -> None:
    hook = HOOKS["connect4"]
    with Object(objects / f"{hook.object}.bpf.o") as foreign, Link.from_pin(app.pin_dir / "links/connect4") as link:
        for name, program in foreign.programs.items():
            program.set_autoload(name == hook.name)
        foreign.programs[hook.name].set_type(hook.prog_type, hook.attach_type)
        foreign.load()
        with foreign.programs[hook.name].open() as loaded:
            link.update(loaded)
    assert "program back into connect4" in repaired(app)


@pytest.mark.parametrize("name", ["connect4", "cgroup_mkdir"])
def test_deleted_link_pin_is_pinned_again(app: Governed, name: str) -> None:
    (app.pin_dir / "links" / name).unlink()
    assert name in repaired(app)
    assert (app.pin_dir / "links" / name).exists()


def test_deleted_pin_is_seen_at_once(
    tmp_path: Path, private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path
) -> None:
    with governed(tmp_path, private_cgroup, pin_dir, objects) as app:
        app.start("--set", "limits.reconcile_interval=1h")
        (app.pin_dir / "maps/labels").unlink()
        assert "labels" in app.await_record("drift-repaired")["message"]
        assert (app.pin_dir / "maps/labels").exists()


def test_pin_directory_that_cannot_be_made_again_is_told_and_tried_again(app: Governed) -> None:
    parked = app.pin_dir.with_name("parked")
    with app.daemon.paused():
        app.pin_dir.rename(parked)
        app.pin_dir.symlink_to("nowhere")
    eventually(lambda: app.daemon.ask("status")["last_reconcile"]["error"], "the error of a pass")
    assert connect(app.app, SHUT) == DENIED
    app.pin_dir.unlink()
    eventually(lambda: not app.daemon.ask("status")["last_reconcile"]["error"], "a pass that makes it again")
    assert (app.pin_dir / "links/connect4").exists()
    assert connect(app.app, SHUT) == DENIED


def test_whole_pin_directory_is_made_again(app: Governed) -> None:
    connect(app.app, SHUT)
    with app.daemon.paused():
        for path in sorted(app.pin_dir.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        app.pin_dir.rmdir()
    eventually((app.pin_dir / "links/connect4").exists, "the links")
    eventually(lambda: connect(app.app, SHUT) == DENIED, "enforcement")
    counts = {row["rule"]: row["enforced"] for row in app.daemon.ask("status")["counters"]}
    assert counts["rest"] >= 2


def test_emptied_labels_are_written_again(app: Governed) -> None:
    with app.daemon.paused(), open_map(app, "labels") as labels:
        for key in list(labels.keys()):
            labels.delete(key)
    assert "labels of" in repaired(app)


def test_call_that_meets_no_label_has_it_written_again(
    tmp_path: Path, private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path
) -> None:
    with governed(tmp_path, private_cgroup, pin_dir, objects) as app:
        app.start("--set", "limits.reconcile_interval=1h", "--set", "audit.window=500ms")
        for round_number in range(2):
            with app.daemon.paused(), open_map(app, "labels") as labels:
                for key in list(labels.keys()):
                    labels.delete(key)
                # A port that was never allowed: a CPU may remember that it allowed OPEN in the round before.
                assert connect(app.app, SHUT) == errno.EPERM
            assert "labels of" in app.await_record("drift-repaired", after=round_number)["message"]
            assert connect(app.app, OPEN) == 0


def test_edited_label_is_written_again(app: Governed) -> None:
    with open_map(app, "labels") as labels:
        entry = labels.lookup(key_of(app.tree))
        assert entry is not None
        labels.update(key_of(app.app), entry)
    assert "labels of 1 cgroups" in repaired(app)


def test_foreign_label_is_removed(app: Governed) -> None:
    foreign = (1 << 60).to_bytes(8, "little")
    with open_map(app, "labels") as labels:
        labels.update(foreign, bytes(128))
        assert "1 labels of no cgroup" in repaired(app)
        assert labels.lookup(foreign) is None


def test_damaged_slot_is_written_again(app: Governed) -> None:
    (app.pin_dir / "slots/1/image").unlink()
    assert "slot" in repaired(app)
    assert app.daemon.ask("status")["generation"] == 2


def test_emptied_table_of_images_is_filled_again(app: Governed) -> None:
    with open_map(app, "images") as images:
        images.delete((1).to_bytes(4, "little"))
    repaired(app)


def test_flipped_slot_is_put_right(app: Governed) -> None:
    with open_map(app, "control") as control, control.mmap(writable=True) as memory:
        memory.bytes[0] = 0
    eventually(lambda: connect(app.app, SHUT) == DENIED, "enforcement")
    repaired(app)


def test_edited_generation_number_is_put_right(app: Governed) -> None:
    with open_map(app, "control") as control, control.mmap(writable=True) as memory:
        memory.bytes[8] = 77
    eventually(lambda: connect(app.app, OPEN) == 0, "enforcement")
    repaired(app)


def test_moved_root_is_put_right(app: Governed) -> None:
    with open_map(app, "control") as control, control.mmap(writable=True) as memory:
        memory.bytes[16:24] = (1).to_bytes(8, "little")
    assert "managed root" in repaired(app)


def test_broken_files_do_not_hinder_repair(app: Governed) -> None:
    app.daemon.write_policy("app.yaml", "kind: [\n")
    app.await_record("policy-rejected")
    (app.pin_dir / "slots/1/index").unlink()
    repaired(app)
    assert app.daemon.ask("status")["problems"]


def test_removed_cgroups_are_no_drift(app: Governed) -> None:
    for step in range(30):
        late = app.tree.child(f"late/{step}")
        assert connect(late, SHUT) == DENIED
        late.path.rmdir()
    app.await_passes(3)
    assert app.records("drift-repaired") == []
    with open_map(app, "labels") as labels:
        eventually(lambda: len(list(labels.keys())) == 3, "labels of the root, /app, /late")
