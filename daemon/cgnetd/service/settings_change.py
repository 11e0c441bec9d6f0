# SPDX-License-Identifier: Apache-2.0
"""Other settings for a daemon that runs: which of them it takes at once, and which wait for its next start.

Values only. Must not know where settings are read from, nor what they do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from cgnetd.service.settings import Settings

LIVE = frozenset(
    (
        *("policy_dirs", "default_action", "audit.window"),
        *("limits.image_bytes", "limits.reconcile_interval"),
    )
)


@dataclass(frozen=True, slots=True)
class SettingsChange:
    """What running settings become. Dotted keys, sorted."""

    settings: Settings
    taken: tuple[str, ...] = ()  # in force from now on
    waiting: tuple[str, ...] = ()  # as before until the daemon is started again


def change(running: Settings, wanted: Settings) -> SettingsChange:
    """Take from `wanted` what a running daemon can take."""
    differing = [key for (key, one), (_, other) in zip(_flat(running), _flat(wanted), strict=True) if one != other]
    taken = tuple(sorted(LIVE.intersection(differing)))
    settings = running
    for key in taken:
        settings = _with(settings, wanted, key)
    return SettingsChange(settings, taken, tuple(sorted(set(differing) - LIVE)))


def _flat(settings: Settings) -> Iterator[tuple[str, Any]]:
    for name, value in settings:
        if isinstance(value, BaseModel):
            yield from ((f"{name}.{below}", setting) for below, setting in value)
        else:
            yield name, value


def _with(settings: Settings, other: Settings, key: str) -> Settings:
    """`settings` with one value of another's."""
    name, _, below = key.partition(".")
    value = getattr(other, name)
    if below:
        value = getattr(settings, name).model_copy(update={below: getattr(value, below)})
    return settings.model_copy(update={name: value})
