# SPDX-License-Identifier: Apache-2.0
"""Outcomes as a JUnit file, for whoever collects those. Must not know where they come from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from vm.outcome import Outcome

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ELEMENTS = {"failed": "failure", "skipped": "skipped"}


def write_junit(path: Path, suite: str, outcomes: Sequence[Outcome]) -> None:
    """Replace `path` by one test suite. OSError."""
    counts = {f"{element}s" if element == "failure" else element: 0 for element in _ELEMENTS.values()}
    root = ElementTree.Element("testsuite", name=suite, tests=str(len(outcomes)))
    for one in outcomes:
        place, _, name = one.test.partition("::")
        case = ElementTree.SubElement(root, "testcase", classname=place, name=name, time=f"{one.seconds:.2f}")
        if one.outcome in _ELEMENTS:
            element = ElementTree.SubElement(case, _ELEMENTS[one.outcome], message=_NOT_XML.sub("?", one.text)[:200])
            element.text = _NOT_XML.sub("?", one.text)
            counts["failures" if one.outcome == "failed" else "skipped"] += 1
    for name, count in counts.items():
        root.set(name, str(count))
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
