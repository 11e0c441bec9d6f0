# SPDX-License-Identifier: Apache-2.0
"""The benchmark at its smallest: what it times is in force and gives the right answers. No time is looked at."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from bench import build, lookup, netfilter, page_calls, peers, scale, stall, structures, tables
from support.crowd import Crowd

pytestmark = pytest.mark.usefixtures("no_fd_leaks")


@pytest.fixture
def scratch(tmp_path: Path, objects: Path, clang: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory, with the programs built already."""
    monkeypatch.setattr(build, "objects", lambda _: objects)
    monkeypatch.setenv("CLANG", clang)
    return tmp_path


def test_look_ups_are_of_every_kind(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "PREFIXES", (200,))
    monkeypatch.setattr(lookup, "RULES", (1, 60))
    monkeypatch.setattr(lookup, "BOTH", (200, 60))
    found = lookup.measure(scratch, 1)
    told = {(row["what"], row["size"], row["family"], row["keys"]) for row in found["rows"]}
    assert len(told) == len(found["rows"]) == 2 * 2 * 5
    assert {way for row in found["rows"] for way in row["ns"]} == {"classified", "judged", "lpm"}
    assert all(about["instructions"] > 0 for about in found["programs"].values())


def test_structures_give_the_same_answers(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structures, "PREFIXES", (200, 2_000))
    found = structures.measure(scratch, 1)
    assert len(found["rows"]) == 2 * 3 * 2
    assert {name for row in found["rows"] for name in row["bytes_a_prefix"]} == {"indexes", "root", "trie", "lpm"}
    assert "IPv6 miss" in tables.text({"structures": found})


def test_every_peer_denies_the_list_and_lets_the_rest_pass(scratch: Path) -> None:
    found = peers.measure(scratch, 1, (1, 5))
    expected = {peers.NONE, peers.EMPTY, peers.OURS, peers.LPM, peers.LANDLOCK}
    expected |= {peers.NFT_RULES, peers.NFT_SET} if "nftables" not in netfilter.lacking() else set()
    expected |= {peers.IPTABLES} if "iptables" not in netfilter.lacking() else set()
    assert {row["setting"] for row in found["rows"]} == expected
    assert {row["size"] for row in found["rows"]} == {1, 5}


def test_crowds_of_every_kind_are_loaded_changed_and_looked_at(
    scratch: Path, objects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd = Crowd(slices=2, common=2, own=3, units=4, sets=1, prefixes=300)
    monkeypatch.setattr(scale, "CROWDS", {"policies": replace(crowd, sets=0), "everything": crowd})
    monkeypatch.setattr(scale, "_IDLE_S", 0.1)
    monkeypatch.setattr(scale, "_SETTLED_S", 0.1)
    found = scale.measure(scratch, objects, 1)
    told = [(of["policies"], of["cgroups"], of["prefixes"]) for of in found.values()]
    assert told == [(7, 11, 0), (7, 11, 300)]
    assert [bool(of["set_ms"]) for of in found.values()] == [False, True]
    assert len([line for line in tables.text({"scale": found}).splitlines() if "changed" in line]) >= 3


def test_generation_is_freed_while_it_is_watched(scratch: Path, objects: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stall, "PREFIXES", 300)
    monkeypatch.setattr(stall, "_WINDOW_S", 0.2)
    found = {"stall": stall.measure(scratch, objects, 2)}
    cpus = len(os.sched_getaffinity(0))
    assert [len(found["stall"][kind]) for kind in ("freed_us", "idle_us")] == [cpus, cpus]
    assert len(tables.text(found).splitlines()) == 3
    assert f"| CPU {cpus - 1}, nothing freed |" in "\n".join(page_calls.sections(found, ()))


def test_peer_without_the_list_is_found_out(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check before the timing fails for one that has another list."""
    monkeypatch.setattr(peers.denylist, "samples", lambda _: [127 << 24 | 200])
    with pytest.raises(RuntimeError, match="denied"):
        peers.measure(scratch, 1, (1,))
