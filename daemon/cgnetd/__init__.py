# SPDX-License-Identifier: Apache-2.0
"""cgnetd: network policy for cgroups. This file knows the version and nothing else."""

__version__ = "0.1.0"  # the same as in pyproject.toml
