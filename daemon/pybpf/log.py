# SPDX-License-Identifier: Apache-2.0
"""libbpf's messages, kept for the error instead of printed. Must not know of objects, maps or programs."""

from __future__ import annotations

import ctypes
import threading

_INFO = 1  # enum libbpf_print_level: 0 warn, 1 info, 2 debug
_LINE_BYTES = 1 << 16
_KEPT_BYTES = 1 << 20  # of one call; the end of a verifier log is what tells

PRINT_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class Recorder(threading.local):
    """Messages since the last `take` of this thread."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.size = 0

    def add(self, text: str) -> None:
        self.parts.append(text)
        self.size += len(text)
        while self.size > _KEPT_BYTES and len(self.parts) > 1:
            self.size -= len(self.parts.pop(0))

    def take(self) -> str:
        text = "".join(self.parts).strip()
        self.parts.clear()
        self.size = 0
        return text


def print_callback(recorder: Recorder) -> ctypes._FuncPointer:
    """A libbpf_print_fn_t that fills the recorder.

    The third argument is a va_list. It arrives as a pointer on x86-64 (an array type) and on arm64 (a struct too large
    for registers), so it can be handed on to vsnprintf as one.
    """
    vsnprintf = ctypes.CDLL(None).vsnprintf
    vsnprintf.restype = ctypes.c_int
    vsnprintf.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p]

    def keep(level: int, fmt: bytes, args: int) -> int:
        if level > _INFO:
            return 0
        buffer = ctypes.create_string_buffer(_LINE_BYTES)
        length = int(vsnprintf(buffer, _LINE_BYTES, fmt, args))
        recorder.add(buffer.value.decode("utf-8", "replace"))
        return length

    return PRINT_CALLBACK(keep)
