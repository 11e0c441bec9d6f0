# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema of the settings file, for editors. Made from the model, so that there is one truth.

It knows keys, words and ranges; durations are checked in full only when the settings are read.
"""

from __future__ import annotations

import json
from typing import Any

from cgnetd.service.settings import Settings

_LEFT_OUT = ("title", "default")  # names of fields again; values as the program holds them, not as they are written


def schema_text() -> str:
    """The schema as the text of config/settings.schema.json."""
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "settings of cgnetd",
        **_bare(Settings.model_json_schema()),
    }
    return json.dumps(schema, indent=2) + "\n"


def _bare(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_bare(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _bare(value) for key, value in schema.items() if key not in _LEFT_OUT}
