# SPDX-License-Identifier: Apache-2.0
"""Write the schemas beside this file from the models: `.venv/bin/python config/make_schema.py`."""

from pathlib import Path

from cgnetd.policy import schema
from cgnetd.service import settings_schema

if __name__ == "__main__":
    for name, text in {"policy": schema.schema_text(), "settings": settings_schema.schema_text()}.items():
        Path(__file__).with_name(f"{name}.schema.json").write_text(text, encoding="utf-8")
