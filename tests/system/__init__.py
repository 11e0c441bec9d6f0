# SPDX-License-Identifier: Apache-2.0
"""Tests of cgnetd as a service of a real systemd."""
