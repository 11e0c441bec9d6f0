# SPDX-License-Identifier: Apache-2.0
"""Writes docs/systemd.md from the cases: `python -m system.side_by_side.page`. Same data, same page. Must not know how
cases are run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import yaml

from system.side_by_side import data
from system.side_by_side.data import CGNETD, OK, SYSTEMD, Case, Section, Translation

PAGE = Path(__file__).parents[3] / "docs" / "systemd.md"
AGREE, NEITHER = "agree", "neither"
_FRAMEWORK = (
    "\n**Debian 12's systemd is built without this** (`-BPF_FRAMEWORK` in `systemctl --version`): it accepts the "
    "settings, starts the units and holds nothing.\nThere the column of systemd reads “goes through” in every line; "
    "cgnetd does what it says.\n"
)


def page() -> str:
    sections = tuple(data.sections())
    words = data.words()
    parts = (
        "<!-- SPDX-License-Identifier: Apache-2.0 -->\n",
        words["head"],
        _summary(sections),
        *map(_section, sections),
        words["more"],
        "\n## From settings to policies\n\n",
        words["guide"],
        *map(_translation, data.guide()),
    )
    return "".join(parts)


def verdict(case: Case, call: str) -> str:
    """Who does what the call is meant to show: it goes through if it is to be allowed, and only then."""
    wanted = call in case.allowed
    does = {side: (case.expected(side, call) == OK) == wanted for side in (SYSTEMD, CGNETD)}
    if does[SYSTEMD] == does[CGNETD]:
        return AGREE if does[SYSTEMD] else NEITHER
    return "systemd does more" if does[SYSTEMD] else "cgnetd does more"


def _summary(sections: Iterable[Section]) -> str:
    verdicts = (AGREE, "cgnetd does more", "systemd does more", NEITHER)
    rows = []
    for section in sections:
        found = [verdict(case, call) for case in section.cases for call in case.calls]
        rows.append((section.title, str(len(found)), *(str(found.count(one)) for one in verdicts)))
    return "\n" + _table(("settings", "calls", *verdicts), rows)


def _section(section: Section) -> str:
    rows = [row for case in section.cases for row in _rows(case)]
    note = _FRAMEWORK if section.framework else ""
    table = _table(("from", "settings", "policy", "call", "is to", "systemd", "cgnetd", ""), rows)
    return f"\n## {section.title}\n\n{section.intro}\n{note}\n{table}"


def _rows(case: Case) -> Iterator[tuple[str, ...]]:
    """Calls of the same fate share a line; what is the same for all is said in the first."""
    head = (case.source, _settings(case), _policy(case))
    remark = f": {case.remark}" if case.remark else ""

    def fate(call: str) -> tuple[str, ...]:
        results = (case.expected(side, call) for side in (SYSTEMD, CGNETD))
        return ("pass" if call in case.allowed else "fail", *map(_result, results), verdict(case, call))

    differ = any(fate(call)[-1] != AGREE for call in case.calls)
    for (wanted, systemd, cgnetd, who), calls in groupby(sorted(case.calls, key=fate), fate):
        tell = remark if who != AGREE or (not differ and head[0]) else ""
        yield (*head, ", ".join(f"`{call}`" for call in calls), wanted, systemd, cgnetd, f"{who}{tell}")
        head = ("", "", "")


def _settings(case: Case) -> str:
    of_slice = [f"slice: `{one}`" for one in case.slice_properties]
    return " ".join((*of_slice, *(f"`{one}`" for one in case.properties))) or "none"


def _policy(case: Case) -> str:
    above = f"slice: `{_flow(case.slice_policy)}` " if case.slice_policy else ""
    return f"{above}`{_flow(case.policy)}`"


def _flow(value: object) -> str:
    """YAML of one line, rules without their names."""
    text = yaml.safe_dump(_nameless(value), default_flow_style=True, width=10**6, sort_keys=False)
    return text.strip().removeprefix("{").removesuffix("}")


def _nameless(value: object) -> object:
    if isinstance(value, dict):
        return {key: _nameless(one) for key, one in value.items() if key != "name"}
    return [_nameless(one) for one in value] if isinstance(value, list) else value


def _result(said: str) -> str:
    return "goes through" if said == OK else said


def _translation(one: Translation) -> str:
    text = yaml.safe_dump(data.document(one), default_flow_style=None, width=140, sort_keys=False)
    remark = f"\n{one.remark}\n" if one.remark else ""
    return f"\n```ini\n{one.setting}\n```\n\n```yaml\n{text}```\n{remark}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    named = tuple(head)
    lines = (named, ["---"] * len(named), *rows)
    return "".join(f"| {' | '.join(word.replace('|', chr(92) + '|') for word in line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
