# SPDX-License-Identifier: Apache-2.0
"""The kernel's side: our maps, programs, links, pins, and the cgroup tree. Knows bytes, ints, descriptors, paths."""
