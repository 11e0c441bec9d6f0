# SPDX-License-Identifier: Apache-2.0
"""The state of the daemon as one line for people, as `systemctl status` shows it.

Must not know where the line is shown, nor change anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cgnetd.datapath.live import Live
from cgnetd.errors import Problem
from cgnetd.service.backends import backend_text, is_alive
from cgnetd.service.health import places
from cgnetd.service.reconcile import Reconciler
from cgnetd.service.report import counted
from cgnetd.service.waiting import missing


@dataclass(frozen=True, slots=True)
class State:
    """What the line tells. Texts are complete phrases or names."""

    generation: int = 0  # in force; 0: none
    policies: int = 0
    governed: int = 0  # cgroups, as of the last walk
    overflow: int = 0  # cgroups of these where every call is denied, for too many policies govern them
    reasons: tuple[str, ...] = ()  # why it does not enforce
    settings: tuple[str, ...] = ()  # why the settings as they are now were not taken: "file:line:column: ..."
    rejected: tuple[Problem, ...] = ()  # why the files as they are now are not in force
    refused: str = ""  # what the kernel refused
    degraded: tuple[Problem, ...] = ()
    dead: tuple[str, ...] = ()  # backends
    waiting: tuple[str, ...] = ()  # for devices, source addresses and probes


def state_of(reconciler: Reconciler, settings_errors: tuple[str, ...] = ()) -> State:
    """As the last pass and the last probes left it."""
    running, last = reconciler.running, reconciler.last
    live = running.index.live if running is not None else Live()
    labels = reconciler.labels_in_force()
    return State(
        generation=running.number if running is not None else 0,
        policies=len(running.index.policies) if running is not None else 0,
        governed=sum(bool(label.policies) or label.overflow for label in labels),
        overflow=sum(label.overflow for label in labels),
        reasons=reconciler.not_enforcing(),
        settings=settings_errors,
        rejected=() if last.writing else last.problems,
        refused=str(last.error) if last.error is not None else "",
        degraded=last.degraded,
        dead=tuple(
            f"{place.service.name} {backend_text(place)}"
            for place in places(live)
            if not is_alive(place, reconciler.live.board)
        ),
        waiting=(*missing(live, reconciler.live.host).texts, *reconciler.live.unprobed_texts),
    )


def summary(state: State) -> str:
    """ "enforcing generation 3, 2 policies, 14 cgroups governed; rejected /etc/cgnetd/policy.d/web.yaml:6"."""
    text = "; ".join((_head(state), *_troubles(state)))
    return "".join(character if character.isprintable() else "?" for character in text)


def _head(state: State) -> str:
    if state.reasons:
        return f"not enforcing: {state.reasons[0]}"
    policies = counted(state.policies, "policy", "policies")
    governed = counted(state.governed, "cgroup", "cgroups")
    return f"enforcing generation {state.generation}, {policies}, {governed} governed"


def _troubles(state: State) -> Iterator[str]:
    if state.settings:
        yield f"settings rejected: {_few([_place(line) for line in state.settings])}"
    if state.rejected:
        yield f"rejected: {_places(state.rejected)}"
    if state.refused and state.refused not in state.reasons:
        yield f"the kernel refused: {state.refused}"
    if state.overflow:
        yield f"everything denied in {counted(state.overflow, 'cgroup', 'cgroups')}, too many policies"
    if state.degraded:
        yield f"degraded: {_places(state.degraded)}"
    if state.dead:
        yield f"dead: {_few(state.dead)}"
    if state.waiting:
        yield _few(state.waiting)


def _places(problems: Sequence[Problem]) -> str:
    return _few(tuple(dict.fromkeys(f"{p.file}:{p.line}" if p.line else p.file for p in problems)))


def _place(line: str) -> str:
    """ "/etc/cgnetd/cgnetd.yaml:3:1: audit: wrong" -> "/etc/cgnetd/cgnetd.yaml:3"."""
    return line.partition(": ")[0].rpartition(":")[0].removesuffix(":0")


def _few(texts: Sequence[str]) -> str:
    """The first one, and how many there are besides: the line is one of many on a screen."""
    return texts[0] if len(texts) == 1 else f"{texts[0]} and {len(texts) - 1} more"
