# SPDX-License-Identifier: Apache-2.0
"""A Debian system under its own kernel, in a virtual machine without hardware help: one CPU, some ten times slower.

It boots, runs the `init` of an archive it is given, and ends. Its disk is never changed. Must not know what it runs.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from beds import commands, trees
from beds.errors import BedError
from beds.follow import follow

# More than one CPU, -cpu max and -cpu with cx16 have been seen to hang in emulation. Once the kernel panics, it starts
# again (panic=-1), which ends the emulator (-no-reboot).
_MACHINE = ("-accel", "tcg", "-cpu", "Haswell-noTSX,-cx16", "-smp", "1", "-m", "1536", "-no-reboot", "-net", "none")
_KERNEL_COMMAND_LINE = (
    "root=/dev/vda rw init=/sbin/bed-init console=ttyS0 quiet panic=-1 oops=panic mitigations=off "
    "lsm=landlock,lockdown,yama,bpf"
)
_PANIC = b"Kernel panic"


def run(distro: trees.Distro, archive: Path, directory: Path, timeout_s: float, heard: Callable[[str], None]) -> None:
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
    with (directory / "emulator.txt").open("wb") as said:
        emulator = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    deadline = time.monotonic() + timeout_s
    try:
        follow(emulator, lines, console, deadline=deadline, heard=heard, doom=_PANIC)
    except BedError as error:
        raise BedError(f"run a virtual machine: {error}") from error
    if emulator.returncode != 0:
        raise BedError(f"run a virtual machine: {(directory / 'emulator.txt').read_text(encoding='utf-8')}")
