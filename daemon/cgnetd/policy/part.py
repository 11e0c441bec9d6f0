# SPDX-License-Identifier: Apache-2.0
"""What all mappings of a document have in common, and the words that several of them take.

Must not know any document.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from .fields import Name

ActionWord = Literal["allow", "deny", "pass"]
ErrnoWord = Literal["EPERM", "EACCES", "ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "ETIMEDOUT"]
ApiVersion = Literal["cgnetd/v1"]


class Part(BaseModel):
    """A mapping that accepts its own keys only, and values of the very type."""

    model_config = ConfigDict(extra="forbid", strict=True)

    later_keys: ClassVar[frozenset[str]] = frozenset()  # refused as "not supported yet by this version"
    later_values: ClassVar[dict[str, frozenset[str]]] = {}  # likewise, by key
    refused_values: ClassVar[dict[str, dict[str, str]]] = {}  # words refused for good, by key, and why
    misplaced: ClassVar[dict[str, str]] = {}  # keys of another place, and what to write instead


class Metadata(Part):
    name: Name
    description: str = ""
