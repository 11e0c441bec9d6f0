# SPDX-License-Identifier: Apache-2.0
"""What the tests share: the case files' model, real socket calls in real cgroups, native programs, a loader.

Must not know pytest (fixtures live in conftest files).
"""
