# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema of policy documents, for editors. Made from the models, so that there is one truth.

It knows shapes, words and ranges; what needs more (host bits, names of sets, globs) only `parse` finds.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter

from .models import AnyDocument


def schema_text() -> str:
    """The schema as the text of config/policy.schema.json."""
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "cgnetd policy document",
        **_without_titles(TypeAdapter(AnyDocument).json_schema()),
    }
    return json.dumps(schema, indent=2) + "\n"


def _without_titles(schema: Any) -> Any:
    """The schema less the titles that are but the names of fields; an editor would show them twice."""
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _without_titles(value) for key, value in schema.items() if key != "title"}
