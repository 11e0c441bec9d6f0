# SPDX-License-Identifier: Apache-2.0
"""Write policy.schema.json beside this file from the models: `.venv/bin/python config/make_schema.py`."""

from pathlib import Path

from cgnetd.policy.schema import schema_text

if __name__ == "__main__":
    Path(__file__).with_name("policy.schema.json").write_text(schema_text(), encoding="utf-8")
