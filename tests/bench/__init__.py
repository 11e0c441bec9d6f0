# SPDX-License-Identifier: Apache-2.0
"""What enforcement costs: calls, reloads, an idle daemon. Run by tests/bench/run.py; asserts nothing."""
