# SPDX-License-Identifier: Apache-2.0
"""Labels of another generation reach every cgroup, whether the tree is walked for it or not, and whatever comes and
goes meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cgnetd.datapath.compile import Image, compile_image
from cgnetd.datapath.label import pack_label, unpack_entry
from cgnetd.kernel.cgroup import Cgroup, CgroupRoot
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import Action
from cgnetd.service.generation import of_image
from cgnetd.service.labelling import Labelling, label_at
from support.enforce import TRACEPOINTS, Enforcement
from support.sandbox import PrivateCgroup

pytestmark = pytest.mark.usefixtures("no_fd_leaks")
POLICY = """
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: app}}
spec:
  subject: {{cgroups: ["/app/**", "/made/*/deep"]}}
  egress:
    - {{action: deny, to: [127.0.0.9], ports: [{port}]}}
"""


def image(number: int) -> Image:
    """All give the same labels."""
    source = Source("a.yaml", POLICY.format(port=number).encode())
    result = parse([source], read_set=lambda _: b"", find_user=lambda _: 0)
    assert result.policy_set, result.problems
    return compile_image(result.policy_set, default_action=Action.ALLOW, generation=number)


class Counting(CgroupRoot):
    """Counts walks, and does something whenever cgroups have been counted."""

    walks = 0
    after_count: Callable[[], None] | None = None

    def walk(self) -> Iterator[Cgroup]:
        self.walks += 1
        return super().walk()

    def descendants(self) -> int | None:
        found = super().descendants()
        if self.after_count is not None:
            self.after_count()
        return found


class Stage:
    """A tree that is labelled for generation after generation."""

    def __init__(self, enforcement: Enforcement, root: Counting) -> None:
        self.enforcement = enforcement
        self.root = root
        self.labelling = Labelling(root, enforcement.store)
        self.images = [image(1), image(1)]
        self.number = 1
        enforcement.load(self.images[0])
        self.labelling.use(0, 1, of_image(self.images[0], 1))
        self.labelling.label_all()

    def write(self) -> None:
        """The next generation, into the slot that is not in force."""
        self.number += 1
        self.images[1] = image(self.number)
        self.enforcement.put(1, self.images[1])
        self.labelling.use(1, self.number, of_image(self.images[1], self.number))

    def walks(self) -> int:
        """How often the tree is walked to label everything."""
        before = self.root.walks
        count = self.labelling.label_all()
        assert count == len(self.labelling.tree)
        return self.root.walks - before

    def wrong(self) -> list[str]:
        """Paths of cgroups that lack a label or have another than they should have in a slot, and ids of labels that
        are of no cgroup."""
        labels = self.enforcement.store.labels()
        readers = [of_image(self.images[0], 1).reader, of_image(self.images[1], self.number).reader]
        wrong = []
        for cgroup in CgroupRoot.walk(self.root):
            entry = unpack_entry(labels.pop(cgroup.id, bytes(128)))
            expected = [label_at(reader, cgroup.path) for reader in readers]
            packed = [pack_label(label, number) for label, number in zip(expected, (1, self.number), strict=True)]
            if list(entry) != packed:
                wrong.append(cgroup.path)
        return wrong + [str(cgroup_id) for cgroup_id in labels]


@pytest.fixture
def stage(private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path) -> Iterator[Stage]:
    for path in ("app/a", "app/b/c", "other"):
        private_cgroup.child(path)
    with Enforcement(private_cgroup.path, pin_dir, objects) as enforcement, Counting(private_cgroup.path) as root:
        yield Stage(enforcement, root)


def test_kernel_counts_the_cgroups_of_a_walk(private_cgroup: PrivateCgroup) -> None:
    with CgroupRoot(private_cgroup.path) as root:
        assert root.descendants() == 0
        for path in ("a/b/c", "d"):
            private_cgroup.child(path)
        assert root.descendants() == len(list(root.walk())) - 1 == 4
        (private_cgroup.path / "d").rmdir()
        assert root.descendants() == 3


def test_tree_in_which_nothing_changed_is_not_walked(stage: Stage) -> None:
    stage.write()
    assert (stage.walks(), stage.wrong()) == (0, [])


def test_cgroups_that_came_and_went_are_found_without_a_walk(stage: Stage, private_cgroup: PrivateCgroup) -> None:
    private_cgroup.child("made/one/deep")
    (private_cgroup.path / "app/b/c").rmdir()
    (private_cgroup.path / "app/b").rmdir()
    stage.write()
    private_cgroup.child("app/late/later")
    assert stage.labelling.label_all() == 9
    assert stage.wrong() == []
    paths = {cgroup.path for cgroup in stage.labelling.tree.values()}
    assert paths == {cgroup.path for cgroup in CgroupRoot.walk(stage.root)}


def test_cgroups_that_the_kernel_labelled_rightly_need_no_walk(stage: Stage, private_cgroup: PrivateCgroup) -> None:
    stage.write()
    assert stage.walks() == 0
    private_cgroup.child("made/one/deep")  # when both generations are there
    assert (stage.walks(), stage.wrong()) == (0, [])


def test_cgroup_that_lost_its_label_gets_one(stage: Stage, private_cgroup: PrivateCgroup) -> None:
    stage.enforcement.store.delete_labels([private_cgroup.child("app/a").id])
    stage.write()
    assert (stage.walks() > 0, stage.wrong()) == (True, [])


def test_cgroup_that_was_never_labelled_gets_a_label(stage: Stage, private_cgroup: PrivateCgroup) -> None:
    stage.enforcement.links.detach(TRACEPOINTS)
    private_cgroup.child("app/unseen")
    stage.write()
    assert (stage.walks() > 0, stage.wrong()) == (True, [])


def test_as_many_cgroups_as_before_are_not_the_same_ones_when_nobody_watched(
    stage: Stage, private_cgroup: PrivateCgroup
) -> None:
    stage.enforcement.links.detach(TRACEPOINTS)
    (private_cgroup.path / "app/a").rmdir()
    private_cgroup.child("app/unseen")
    stage.enforcement.links.attach(TRACEPOINTS)
    stage.labelling.doubt()
    stage.write()
    assert (stage.walks() > 0, stage.wrong()) == (True, [])


def test_cgroup_that_the_kernel_could_not_label_gets_a_label(stage: Stage, private_cgroup: PrivateCgroup) -> None:
    store = stage.enforcement.store
    store.set_generation(0, 7)  # what is in force is another generation than the parents' labels are of
    private_cgroup.child("app/failed")
    store.set_generation(0, 1)
    stage.write()
    assert (stage.walks() > 0, stage.wrong()) == (True, [])


def test_cgroup_that_comes_while_cgroups_are_counted_has_its_label(stage: Stage, private_cgroup: PrivateCgroup) -> None:
    def come_and_go() -> None:
        private_cgroup.child("app/meanwhile")
        (private_cgroup.path / "app/a").rmdir()
        stage.root.after_count = None

    stage.write()
    stage.root.after_count = come_and_go
    stage.labelling.label_all()
    assert stage.wrong() == []
    assert {cgroup.path for cgroup in stage.labelling.tree.values()} == {
        cgroup.path for cgroup in CgroupRoot.walk(stage.root)
    }


def test_more_new_cgroups_than_are_found_one_by_one_are_walked_to(stage: Stage, private_cgroup: PrivateCgroup) -> None:
    for number in range(300):
        private_cgroup.child(f"app/many/{number}")
    stage.write()
    assert (stage.walks() > 0, stage.wrong()) == (True, [])


def churn(cgroup: PrivateCgroup) -> None:
    """Makes and removes cgroups until it is killed."""
    number = 0
    while True:
        path = cgroup.path / f"app/{number % 20}"
        if number >= 20:
            (path / "below").rmdir()
            path.rmdir()
        (path / "below").mkdir(parents=True)
        number += 1


@contextmanager
def churning(cgroup: PrivateCgroup) -> Iterator[None]:
    child = os.fork()
    if not child:
        try:
            churn(cgroup)
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_every_cgroup_is_labelled_rightly_while_others_come_and_go(stage: Stage, private_cgroup: PrivateCgroup) -> None:
    with churning(private_cgroup):
        for _ in range(30):
            stage.write()
            stage.labelling.label_all()
    stage.labelling.drop_extra(stage.labelling.differences())
    assert stage.wrong() == []
