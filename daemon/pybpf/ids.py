# SPDX-License-Identifier: Apache-2.0
"""Every program and every link in the kernel, by id. Must not open them.

Ids are never used again before 2^31 others were; whatever has one can be gone by the time it is looked at.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable, Iterator

from pybpf.errors import BpfError
from pybpf.lib import libbpf


def program_ids() -> Iterator[int]:
    """In the order of loading. BpfError EPERM without privilege."""
    return _ids(libbpf().bpf_prog_get_next_id)


def link_ids() -> Iterator[int]:
    """In the order of attaching. BpfError EPERM without privilege."""
    return _ids(libbpf().bpf_link_get_next_id)


def _ids(next_after: Callable[..., int]) -> Iterator[int]:
    found = ctypes.c_uint32()
    while True:
        try:
            next_after(found.value, ctypes.byref(found))
        except BpfError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        yield found.value
