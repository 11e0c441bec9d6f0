# SPDX-License-Identifier: Apache-2.0
"""The daemon's settings: their model and their defaults.

Values only. Must not know where they are read from, nor what they do.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from cgnetd.policy.types import Action
from cgnetd.service import places
from cgnetd.service.clock import parse_duration

_SECOND_NS = 10**9


def _duration(value: Any) -> Any:
    if isinstance(value, str):
        return parse_duration(value)
    raise ValueError('accepted is a number with a unit: "500ms", "10s", "10m" or "1h"')


def _absolute(value: str) -> str:
    if not os.path.isabs(value):
        raise ValueError("accepted is an absolute path")
    return os.path.normpath(value)


def _unsupported_list(value: Any) -> Any:
    if value in ([], None):
        return ()
    raise ValueError("not supported yet by this version; accepted is an empty list")


def _unsupported_flag(value: Any) -> Any:
    if value is False:
        return value
    raise ValueError("not supported yet by this version; accepted is false")


def _between(shortest_ns: int, longest_ns: int, text: str) -> AfterValidator:
    def check(value: int) -> int:
        if not shortest_ns <= value <= longest_ns:
            raise ValueError(f"accepted is {text}")
        return value

    return AfterValidator(check)


Path = Annotated[str, AfterValidator(_absolute), WithJsonSchema({"type": "string", "pattern": "^/"})]
DurationNs = Annotated[
    int,
    BeforeValidator(_duration),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)? ?(ms|s|m|min|h)$"}),
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=False)


class Audit(_Section):
    """Where events go, and how often one is repeated."""

    sink: Literal["auto", "journal", "stdout"] = "auto"
    window: Annotated[DurationNs, _between(_SECOND_NS // 10, 3600 * _SECOND_NS, "100ms to 1h")] = 10 * _SECOND_NS


class Metrics(_Section):
    """Reserved for a later version."""

    enabled: Annotated[bool, BeforeValidator(_unsupported_flag), WithJsonSchema({"const": False})] = False


class Limits(_Section):
    """What the daemon may use."""

    cgroups: Annotated[int, Field(ge=1024, le=4 * 1024 * 1024)] = 65536
    flows: Annotated[int, Field(ge=256, le=1024 * 1024)] = 16384
    # Not above 8 * 2^24: no list of an image may outgrow the programs' bisection.
    image_bytes: Annotated[int, Field(ge=64 * 1024, le=128 * 1024**2)] = 64 * 1024**2
    reconcile_interval: Annotated[DurationNs, _between(_SECOND_NS // 10, 3600 * _SECOND_NS, "100ms to 1h")] = (
        5 * _SECOND_NS
    )


class Settings(_Section):
    """Everything that can be set. Durations are nanoseconds, paths absolute."""

    policy_dirs: Annotated[tuple[Path, ...], Field(strict=False, min_length=1)] = (
        "/etc/cgnetd/policy.d",
        "/run/cgnetd/policy.d",
        "/usr/lib/cgnetd/policy.d",
    )
    pin_dir: Path = "/sys/fs/bpf/cgnetd"
    cgroup_root: Path | None = None
    control_socket: Path = places.CONTROL_SOCKET
    control_group: Annotated[str, Field(min_length=1)] | None = "cgnetd"
    default_action: Literal["allow", "deny"] = "allow"
    audit: Audit = Audit()
    metrics: Metrics = Metrics()
    limits: Limits = Limits()
    failsafe: Annotated[tuple[str, ...], BeforeValidator(_unsupported_list), WithJsonSchema({"const": []})] = ()

    @property
    def default(self) -> Action:
        """`default_action` as the policy room names it."""
        return Action(self.default_action)
