# SPDX-License-Identifier: Apache-2.0
"""The kernel tests on other kernels."""
