# SPDX-License-Identifier: Apache-2.0
"""Test beds: Debian trees, booted under a real systemd on this kernel or under their own kernel in a virtual machine.

Must not know what is tested in them.
"""
