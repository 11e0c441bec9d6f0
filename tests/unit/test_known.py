# SPDX-License-Identifier: Apache-2.0
"""A parse that remembers the last one finds what a parse without memory finds, and makes only what changed."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from cgnetd.policy.known import Known, digest_of
from cgnetd.policy.load import ParseResult, Source, parse
from cgnetd.policy.packed import PACKED_FROM, PackedRanges, packed
from cgnetd.policy.ranges import covers, difference, size
from cgnetd.policy.types import AddressRanges, Policy

POLICY = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: {name}}}
spec:
  subject: {{units: [{name}.service], users: [{user}]}}
  egress: [{{action: deny, to: [{to}], ports: [{port}]}}]
"""
SET = """\
apiVersion: cgnetd/v1
kind: AddressSet
metadata: {name: listed}
spec: {addresses: [192.0.2.0/24], files: [/listed.txt]}
"""
SERVICE = """\
apiVersion: cgnetd/v1
kind: Service
metadata: {{name: db}}
spec: {{addresses: [192.0.2.20], ports: [{{port: 5432}}], backends: [{{address: {backend}}}]}}
"""


class Files:
    """Files, users, and a parse that remembers."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.sets = {"/listed.txt": b"198.51.100.0/24\n"}
        self.users = {"web": 1000}
        self.known = Known()
        self.read: list[str] = []

    def write(self, name: str, *, to: str = "10.0.0.0/8", port: int = 443, user: str = "1001") -> None:
        self.texts[f"{name}.yaml"] = POLICY.format(name=name, to=to, port=port, user=user)

    def parse(self, unchanged: Mapping[str, bytes] | None = None) -> ParseResult:
        """What a parse finds that remembers; the same as one that does not."""
        sources = [Source(path, text.encode()) for path, text in sorted(self.texts.items())]
        self.read.clear()
        found = parse(
            sources, read_set=self._set, find_user=self.users.__getitem__, known=self.known, unchanged=unchanged
        )
        assert found == parse(sources, read_set=self.sets.__getitem__, find_user=self.users.__getitem__)
        return found

    def _set(self, path: str) -> bytes:
        self.read.append(path)
        return self.sets[path]


@pytest.fixture
def files() -> Files:
    return Files()


def policies(found: ParseResult) -> dict[str, Policy]:
    assert found.policy_set is not None, found.problems
    return {policy.name: policy for policy in found.policy_set.policies}


def test_policies_of_files_that_did_not_change_are_the_same_objects(files: Files) -> None:
    for name in ("a", "b", "c"):
        files.write(name)
    before = policies(files.parse())
    files.write("b", port=80)
    after = policies(files.parse())
    assert [after[name] is before[name] for name in ("a", "b", "c")] == [True, False, True]


def test_a_policy_on_a_set_changes_with_the_set_alone(files: Files) -> None:
    files.texts["sets.yaml"] = SET
    files.write("a", to='"set:listed"')
    files.write("b")
    before = policies(files.parse())
    assert policies(files.parse())["a"] is before["a"]
    files.sets["/listed.txt"] = b"203.0.113.0/24\n"
    after = policies(files.parse())
    assert after["a"].egress[0].addresses != before["a"].egress[0].addresses
    assert after["b"] is before["b"]


def test_equal_lists_of_words_are_held_once_whichever_file_was_read_when(files: Files) -> None:
    files.texts["sets.yaml"] = SET
    files.write("a", to='"set:listed", 10.0.0.0/8')
    files.write("b")
    before = policies(files.parse())
    files.write("b", to='"set:listed", 10.0.0.0/8')
    assert policies(files.parse())["b"].egress[0].addresses is before["a"].egress[0].addresses
    files.write("a")
    files.parse()
    files.write("c", to='"set:listed", 10.0.0.0/8')
    assert policies(files.parse())["c"].egress[0].addresses is before["a"].egress[0].addresses


def test_a_policy_on_a_service_changes_with_the_service(files: Files) -> None:
    files.texts["db.yaml"] = SERVICE.format(backend="10.0.0.11")
    files.texts["a.yaml"] = POLICY.format(name="a", to="service:db", port=5432, user="1").replace("deny", "redirect")
    before = policies(files.parse())
    assert policies(files.parse())["a"] is before["a"]
    files.texts["db.yaml"] = SERVICE.format(backend="10.0.0.12")
    redirect = policies(files.parse())["a"].egress[0].redirect
    assert redirect is not None
    assert redirect.service is not None
    assert redirect.service.backends[0].endpoint.address == 0x0A00000C


def test_a_user_of_another_number_is_seen(files: Files) -> None:
    files.write("a", user="web")
    files.write("b")
    before = policies(files.parse())
    files.users["web"] = 2000
    after = policies(files.parse())
    assert after["a"].subject != before["a"].subject
    assert after["b"] is before["b"]
    files.users.clear()
    assert "there is no user" in files.parse().problems[0].message


def test_a_set_that_went_is_missed_by_a_policy_that_did_not_change(files: Files) -> None:
    files.texts["sets.yaml"] = SET
    files.write("a", to='"set:listed"')
    files.parse()
    del files.texts["sets.yaml"]
    assert 'there is no AddressSet "listed"' in files.parse().problems[0].message


def test_a_duplicate_of_a_policy_that_did_not_change_is_told_with_both_places(files: Files) -> None:
    files.write("a")
    files.parse()
    files.texts["b.yaml"] = files.texts["a.yaml"]
    (problem,) = files.parse().problems
    assert (problem.file, "first at a.yaml:3" in problem.message) == ("b.yaml", True)
    files.write("b")
    assert set(policies(files.parse())) == {"a", "b"}


def test_mistakes_are_told_again_and_what_was_right_is_kept(files: Files) -> None:
    files.write("a")
    before = policies(files.parse())
    files.write("b", to="10.0.0.1/8")
    assert files.parse().problems == files.parse().problems != ()
    files.write("b")
    assert policies(files.parse())["a"] is before["a"]


def test_a_set_file_that_is_as_it_was_is_not_read(files: Files) -> None:
    files.texts["sets.yaml"] = SET
    files.write("a", to='"set:listed"')
    digest = {"/listed.txt": digest_of(files.sets["/listed.txt"])}
    before = policies(files.parse(digest))
    assert files.read == ["/listed.txt"]  # nobody knows it yet
    assert policies(files.parse(digest))["a"] is before["a"]
    assert files.read == []


def test_a_set_file_is_known_by_what_was_parsed_of_it_not_by_what_was_read_last(files: Files) -> None:
    files.texts["sets.yaml"] = SET
    files.write("a", to='"set:listed"')
    files.parse()
    files.sets["/listed.txt"] = b"nonsense\n"
    assert files.parse().problems != ()
    assert files.parse({"/listed.txt": digest_of(b"nonsense\n")}).problems != ()


def test_doubts_are_told_each_time(files: Files) -> None:
    files.write("a", to="10.0.0.0/8, 0.0.0.0")
    files.write("b")
    assert files.parse().warnings == files.parse().warnings != ()


@pytest.mark.parametrize("bits", [32, 128])
def test_packed_ranges_are_the_ranges_that_went_in(bits: int) -> None:
    edges = sorted({0, (1 << bits) - 1, *random.Random(1).sample(range(1, 1 << min(bits, 62)), 2 * PACKED_FROM)})
    ranges = tuple(zip(edges[::2], edges[1::2], strict=True))
    small = packed(ranges)
    assert isinstance(small, PackedRanges)
    assert (tuple(small), len(small), small[:2], small[-1]) == (ranges, len(ranges), ranges[:2], ranges[-1])
    assert small == packed(ranges)
    assert hash(small) == hash(packed(ranges))
    assert small != packed(ranges[1:])
    family = 4 if bits == 32 else 6
    whole = AddressRanges(v4=small) if family == 4 else AddressRanges(v6=small)
    hole = AddressRanges(v4=ranges[1:]) if family == 4 else AddressRanges(v6=ranges[1:])
    assert all(covers(whole, family, first) and covers(whole, family, last) for first, last in ranges)
    assert size(difference(whole, hole)) == 1
    assert size(difference(hole, whole)) == 0


def test_few_ranges_stay_a_tuple() -> None:
    assert packed(((1, 2),)) == ((1, 2),)
