# SPDX-License-Identifier: Apache-2.0
"""A Debian system under its own kernel, in a virtual machine without hardware help: one CPU, some ten times slower.

It boots, runs the `init` of an archive it is given, and ends. Its disk is never changed. Must not know what it runs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from beds import commands, trees
from beds.errors import BedError

# More than one CPU, -cpu max and -cpu with cx16 have been seen to hang in emulation. Once the kernel panics, it starts
# again (panic=-1), which ends the emulator (-no-reboot).
_MACHINE = ("-accel", "tcg", "-cpu", "Haswell-noTSX,-cx16", "-smp", "1", "-m", "1536", "-no-reboot", "-net", "none")
_KERNEL_COMMAND_LINE = (
    "root=/dev/vda rw init=/sbin/bed-init console=ttyS0 quiet panic=-1 oops=panic mitigations=off "
    "lsm=landlock,lockdown,yama,bpf"
)
_POLL_S = 0.5
_PANIC = b"Kernel panic"


def run(
    distro: trees.Distro, archive: Path, directory: Path, *, timeout_s: float, heard: Callable[[str], None]
) -> None:
    """Boot, and hand over each line that the machine writes to /dev/ttyS1, as it comes, until it switches itself off.

    `archive`: a tar file with an executable `init`. `directory` gets the console (console.txt) and the lines
    (lines.txt). BedError if the kernel panics, or after `timeout_s`; the emulator is gone in any case.
    """
    commands.require("qemu-system-x86_64", "mkfs.ext4")
    image = trees.image(distro)
    kernel, initrd = trees.boot_files(distro)
    console, lines = directory / "console.txt", directory / "lines.txt"
    lines.touch()
    words = [
        *("nice", "-n", "19", "setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", *_MACHINE, "-display", "none"),
        *("-monitor", "none", "-serial", f"file:{console}", "-serial", f"file:{lines}"),
        *("-kernel", os.fspath(kernel), "-initrd", os.fspath(initrd), "-append", _KERNEL_COMMAND_LINE),
        *("-drive", f"file={image},format=raw,if=virtio,snapshot=on"),
        *("-drive", f"file={archive},format=raw,if=virtio,snapshot=on"),
    ]
    with (directory / "emulator.txt").open("wb") as said, lines.open("rb") as follower:
        emulator = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            _follow(emulator, follower.readline, console, time.monotonic() + timeout_s, heard)
        finally:
            emulator.kill()
            emulator.wait()
    if emulator.returncode not in (0, -signal.SIGKILL):
        raise BedError(f"run a virtual machine: {(directory / 'emulator.txt').read_text(encoding='utf-8')}")


def _follow(
    emulator: subprocess.Popen[bytes],
    read: Callable[[], bytes],
    console: Path,
    deadline: float,
    heard: Callable[[str], None],
) -> None:
    rest = b""
    ended = False
    while True:
        while chunk := read():
            rest += chunk
            if rest.endswith(b"\n"):
                heard(rest.decode(errors="replace").strip())
                rest = b""
        if _PANIC in (console.read_bytes() if console.exists() else b""):
            raise BedError(f"run a virtual machine: its kernel panicked; see {console}")
        if ended:
            return
        if time.monotonic() > deadline:
            raise BedError(f"run a virtual machine: not done in time; see {console}")
        ended = emulator.poll() is not None  # what it wrote last is still to be read
        time.sleep(_POLL_S)
