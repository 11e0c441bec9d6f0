# SPDX-License-Identifier: Apache-2.0
"""The cases and the guide of the YAML files beside this one, read. Must not know machines, nor how a page looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
SECTIONS = ("addresses", "binds", "families", "interfaces", "more")
SYSTEMD, CGNETD, NOTHING = SIDES = ("systemd", "cgnetd", "nothing")
OK = "ok"


@dataclass(frozen=True, slots=True)
class Case:
    """One configuration said twice, and calls that it is to allow or deny. `denied_as`: results by side, then by the
    first words of a call; `told`: the same for this case alone."""

    name: str
    section: str
    source: str
    properties: tuple[str, ...]
    policy: Mapping[str, Any]
    slice_properties: tuple[str, ...]
    slice_policy: Mapping[str, Any] | None
    allowed: tuple[str, ...]
    denied: tuple[str, ...]
    told: Mapping[str, Mapping[str, str]]
    denied_as: Mapping[str, Mapping[str, str]]
    remark: str

    @property
    def calls(self) -> tuple[str, ...]:
        return self.allowed + self.denied

    def expected(self, side: str, call: str) -> str:
        """What comes of a call on one side, where that side can do what it was told."""
        said = _by_words(self.told.get(side, {}), call)
        if said is None and call in self.denied and side != NOTHING:
            said = _by_words(self.denied_as[side], call) or "EPERM"
        return said or OK

    def unit(self, side: str) -> str:
        return f"side-{self.name}-{side}.service"

    def slice(self, side: str) -> str:
        """Without dashes in the name: each would be a slice of its own."""
        return f"side{self.name.replace('-', '')}{side}.slice"

    def documents(self) -> list[dict[str, Any]]:
        """The policies of the side of cgnetd."""
        made = [_policy(self.name, {"units": [self.unit(CGNETD)]}, self.policy)]
        if self.slice_policy is not None:
            made.append(_policy(f"{self.name}-slice", {"slices": [self.slice(CGNETD)]}, self.slice_policy))
        return made


@dataclass(frozen=True, slots=True)
class Section:
    """`framework`: systemd does it only if it was built with its BPF framework."""

    title: str
    intro: str
    framework: bool
    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True)
class Translation:
    """What is written for systemd, the policy that replaces it, and what to know about it."""

    setting: str
    policy: Mapping[str, Any]
    remark: str


def sections() -> Iterator[Section]:
    for name in SECTIONS:
        read = _read(name)
        denied_as = {SYSTEMD: {}, CGNETD: {}} | read.get("denied_as", {})
        cases = tuple(_case(name, denied_as, one) for one in read["cases"])
        yield Section(read["title"], read["intro"], read.get("framework", False), cases)


def cases() -> tuple[Case, ...]:
    return tuple(case for section in sections() for case in section.cases)


def guide() -> tuple[Translation, ...]:
    return tuple(Translation(one["setting"], one["policy"], one.get("remark", "")) for one in _read("guide")["guide"])


def document(translation: Translation) -> dict[str, Any]:
    spec = {"subject": {"units": ["app.service"]}, **translation.policy}
    return {"apiVersion": "cgnetd/v1", "kind": "Policy", "metadata": {"name": "app"}, "spec": spec}


def words() -> Mapping[str, str]:
    """What the page says around the tables."""
    found: Mapping[str, str] = _read("words")
    return found


def _case(section: str, denied_as: Mapping[str, Mapping[str, str]], one: Mapping[str, Any]) -> Case:
    return Case(
        name=one["name"],
        section=section,
        source=one["source"],
        properties=tuple(one.get("properties", ())),
        policy=one["policy"],
        slice_properties=tuple(one.get("slice_properties", ())),
        slice_policy=one.get("slice_policy"),
        allowed=tuple(one.get("allowed", ())),
        denied=tuple(one.get("denied", ())),
        told={side: one[side] for side in SIDES if side in one},
        denied_as=denied_as,
        remark=one.get("remark", ""),
    )


def _policy(name: str, subject: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    named = {"apiVersion": "cgnetd/v1", "kind": "Policy", "metadata": {"name": f"side-{name}"}}
    return {**named, "spec": {"subject": subject, **spec}}


def _by_words(results: Mapping[str, str], call: str) -> str | None:
    """By the longest beginning of the call that is named."""
    named = [key for key in results if key == call or call.startswith(f"{key} ")]
    return results[max(named, key=len)] if named else None


def _read(name: str) -> Any:
    return yaml.safe_load((HERE / f"{name}.yaml").read_text(encoding="utf-8"))
