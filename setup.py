# SPDX-License-Identifier: Apache-2.0
"""Puts the compiled programs of the kernel side into what is installed; everything else is in pyproject.toml.

They are compiled by clang when a wheel is built, so `pip install .` needs clang, llvm, make and libbpf's headers. With
CGNETD_OBJECTS=DIR they are taken from there instead. An editable installation has them in the checkout: `make bpf`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

_PROGRAMS = Path("bpf")
_PLACE = Path("cgnetd", "kernel", "objects")


class BuildWithPrograms(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        place = Path(self.build_lib, _PLACE)
        shutil.rmtree(place, ignore_errors=True)  # what lies in the checkout may be of another version
        place.mkdir(parents=True)
        objects = self._objects()
        for name in _names():
            shutil.copyfile(objects / name, place / name)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        outputs = super().get_outputs(include_bytecode)
        return [*outputs, *(os.path.join(self.build_lib, _PLACE, name) for name in _names())]

    def _objects(self) -> Path:
        """The directory that holds them, compiled if need be."""
        if ready := os.environ.get("CGNETD_OBJECTS"):
            return Path(ready)
        objects = Path(self.get_finalized_command("build").build_temp, "bpf").absolute()
        missing = [program for program in ("make", "clang") if shutil.which(program) is None]
        if missing:
            raise SystemExit(
                f"build cgnetd: no {', no '.join(missing)}; on Debian: apt install clang llvm libbpf-dev make"
            )
        subprocess.run(["make", "-C", str(_PROGRAMS), f"OUT={objects}"], check=True)
        return objects


def _names() -> list[str]:
    """Of all objects but those that only tests load."""
    names = (source.with_suffix(".o").name for source in sorted(_PROGRAMS.glob("*.bpf.c")))
    return [name for name in names if not name.endswith("_test.bpf.o")]


setup(cmdclass={"build_py": BuildWithPrograms})
