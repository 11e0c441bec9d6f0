# SPDX-License-Identifier: Apache-2.0
"""The steps that a reconcile pass can make, as values with a text for people. Each can be done again at no harm.

Must not know when a step is needed, or how it is made.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class LinkState(enum.Enum):
    OK = "ok"
    MISSING = "missing"
    BROKEN = "broken"  # detached, or attached to something else
    OUTDATED = "outdated"  # right place, another program


@dataclass(frozen=True, slots=True)
class Control:
    """What cgn_control should say beside the slots. `flags` (abi.CONTROL_*) are never taken back."""

    root_id: int
    root_level: int
    window_ns: int
    flags: int = 0
    netns: int = 0  # cookie of the daemon's network namespace


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do. `drift`: not because a policy or setting asks for it, but because somebody changed something."""

    drift: bool

    @property
    def text(self) -> str:
        """What the step does, for people."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class RepairPins(Step):
    names: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"pin {', '.join(self.names)} again"


@dataclass(frozen=True, slots=True)
class FixControl(Step):
    control: Control

    @property
    def text(self) -> str:
        return "set the managed root, the event window and what the programs need to know of the host"


@dataclass(frozen=True, slots=True)
class WriteGeneration(Step):
    slot: int

    @property
    def text(self) -> str:
        return f"write a generation into slot {self.slot}"


@dataclass(frozen=True, slots=True)
class AttachLink(Step):
    """Attach, or attach again in the place of a link that is broken."""

    name: str
    state: LinkState

    @property
    def text(self) -> str:
        return f"attach {self.name}, which was {self.state.value}"


@dataclass(frozen=True, slots=True)
class UpdateLink(Step):
    """Put our program into a link that holds another one: an older one of ours at an upgrade, whatever at drift."""

    name: str

    @property
    def text(self) -> str:
        return f"put our program back into {self.name}" if self.drift else f"update the program of {self.name}"


@dataclass(frozen=True, slots=True)
class Relabel(Step):
    """Label every cgroup for the generations in the slots. `count`: entries found wrong, 0 for a new generation."""

    count: int = 0

    @property
    def text(self) -> str:
        return f"mend the labels of {self.count} cgroups" if self.count else "label every cgroup"


@dataclass(frozen=True, slots=True)
class Activate(Step):
    slot: int

    @property
    def text(self) -> str:
        return f"put slot {self.slot} in force"


@dataclass(frozen=True, slots=True)
class ClearSlot(Step):
    slot: int

    @property
    def text(self) -> str:
        return f"empty slot {self.slot}"


@dataclass(frozen=True, slots=True)
class DetachLink(Step):
    name: str

    @property
    def text(self) -> str:
        return f"detach {self.name}, which no policy needs"


@dataclass(frozen=True, slots=True)
class DropLabels(Step):
    """Remove entries of cgroups that are not ours, or not there any more."""

    count: int

    @property
    def text(self) -> str:
        return f"remove {self.count} labels of no cgroup of ours"


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps in order. Empty: everything is as it should be."""

    steps: tuple[Step, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.steps)

    @property
    def repairs(self) -> tuple[Step, ...]:
        """Those that mend drift."""
        return tuple(step for step in self.steps if step.drift)
