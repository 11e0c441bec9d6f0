# SPDX-License-Identifier: Apache-2.0
"""`cgnetctl check`: parse and compile policy files as the daemon would; every error is told. Needs no privilege."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cgnetd.cli.amount import memory
from cgnetd.cli.answer import Answer, Style
from cgnetd.cli.defaults import settings
from cgnetd.errors import PolicyError, Problem, SettingsError
from cgnetd.service import places

if TYPE_CHECKING:
    from cgnetd.policy.types import PolicySet
    from cgnetd.service.settings import Settings

HELP = "parse and compile policies; errors, warnings, sizes; exits 78 on errors"

EXIT_BAD_POLICY = PolicyError.exit_code
CELL_BYTES = 8
_SIZE_NAMES = {"live": "live cells", "names": "states of socket names", "states": "states of subjects"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("places", metavar="FILE|DIR", nargs="*", help="default: the configured policy directories")


def run(args: argparse.Namespace, style: Style) -> Answer:
    from cgnetd.cli.offline import load, load_directories  # slow to import, and only needed here

    configured, doubts = _settings(args)
    loaded = load(args.places) if args.places else load_directories(configured.policy_dirs)
    problems, warnings = loaded.problems, (*doubts, *loaded.warnings)
    sizes: dict[str, Any] = {}
    if loaded.policy_set is not None:
        try:
            sizes, crowds = compiled(loaded.policy_set, configured)
            warnings = tuple(sorted((*warnings, *crowds)))
        except PolicyError as error:
            problems = error.problems
    data = {
        "ok": not problems,
        "files": list(loaded.files),
        "errors": [problem._asdict() for problem in problems],
        "warnings": [warning._asdict() for warning in warnings],
        "sizes": sizes,
    }
    lines = tuple(_lines(problems, warnings, len(loaded.files), sizes, style))
    return Answer(data, lines, EXIT_BAD_POLICY if problems else 0)


def _settings(args: argparse.Namespace) -> tuple[Settings, tuple[Problem, ...]]:
    """The settings; broken ones are a warning if files were named, for then they only hold limits."""
    try:
        return settings(args), ()
    except SettingsError as error:
        if not args.places or args.config is not None:
            raise
        from cgnetd.service.settings import Settings

        text = f"the settings cannot be read, their defaults are taken: {error}"
        return Settings(), (Problem(places.CONFIG, 0, 0, "", " ".join(text.split())),)


def compiled(policy_set: PolicySet, configured: Settings) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    """How large the compiled tables are, all together and by policy, and what is doubtful about them.

    Raises PolicyError for a set that does not fit.
    """
    from cgnetd.cli.crowded import crowds
    from cgnetd.datapath.compile import compile_image

    limit_cells = configured.limits.image_bytes // CELL_BYTES
    image = compile_image(policy_set, default_action=configured.default, generation=1, limit_cells=limit_cells)
    sizes = asdict(image.sizes)
    parts = zip(policy_set.policies, sizes.pop("policies"), strict=True)
    sizes |= {
        "limit_bytes": configured.limits.image_bytes,
        "live_bytes": sizes["live"] * CELL_BYTES,
        "by_policy": {policy.name: {"bytes": part["cells"] * CELL_BYTES, **part} for policy, part in parts},
    }
    return sizes, crowds(policy_set, image)


def _lines(
    problems: tuple[Problem, ...], warnings: tuple[Problem, ...], files: int, sizes: dict[str, Any], style: Style
) -> Iterator[str]:
    for problem in problems:
        yield f"{style.bad('error')}: {problem}"
    for warning in warnings:
        yield f"{style.doubtful('warning')}: {warning}"
    found = f"{_counted(files, 'file')}: {{}}, {_counted(len(warnings), 'warning')}"
    if problems:
        yield found.format(style.bad(_counted(len(problems), "error"))) + "; the set would be rejected"
        return
    yield found.format(style.good("ok"))
    if sizes:
        yield "memory: " + memory(sizes["bytes"], sizes["limit_bytes"])
        yield "compiled: " + ", ".join(f"{value} {name}" for name, value in _totals(sizes) if value)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _totals(sizes: dict[str, Any]) -> Iterator[tuple[str, int]]:
    numbers = ((name, value) for name, value in sizes.items() if isinstance(value, int) and "bytes" not in name)
    return ((_SIZE_NAMES.get(name, name.replace("_", " ")), value) for name, value in numbers)
