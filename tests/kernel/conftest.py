# SPDX-License-Identifier: Apache-2.0
"""What kernel tests use: the mark, the check of the surroundings, a store, the built objects."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cgnetd.errors import CgnetdError
from cgnetd.kernel import features
from cgnetd.kernel.cgroup import CgroupRoot, find_root
from cgnetd.kernel.features import Features
from cgnetd.kernel.store import Store
from support.sandbox import PrivateCgroup

HERE = Path(__file__).parent
TOP = HERE.parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.kernel)


@pytest.fixture(scope="session")
def kernel_features() -> Features:
    """What this kernel can do. Skips where nothing can be tried at all."""
    if os.geteuid() != 0:
        pytest.skip("not root")
    try:
        find_root()
        return features.probe()
    except CgnetdError as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def _kernel(kernel_features: Features) -> None:
    if "sock_addr" in kernel_features.missing():
        pytest.skip(features.COSTS["sock_addr"])


@pytest.fixture
def no_fd_leaks() -> Iterator[None]:
    """Fails the test if it leaves descriptors open."""
    before = _open_fds()
    yield
    assert _open_fds() == before


def _open_fds() -> dict[str, str]:
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue  # the descriptor of this very listing
    return found


@pytest.fixture(scope="session")
def compile_bpf(tmp_path_factory: pytest.TempPathFactory, clang: str) -> Callable[[str], Path]:
    """Builds a test program of tests/kernel/bpf: name without ending, optional -D words -> object file."""

    def build(name: str, *defines: str) -> Path:
        out = tmp_path_factory.mktemp("bpf") / f"{name}.bpf.o"
        source = HERE / "bpf" / f"{name}.bpf.c"
        machine = f"/usr/include/{os.uname().machine}-linux-gnu"
        options = ["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror", "-idirafter", machine]
        subprocess.run([clang, *options, *(f"-D{word}" for word in defines), "-c", source, "-o", out], check=True)
        return out

    return build


@pytest.fixture
def compile_c(tmp_path: Path, clang: str) -> Callable[[str], list[int]]:
    """Values of C expressions, separated by commas, with abi.h included."""

    def values(expressions: str) -> list[int]:
        source, program = tmp_path / "values.c", tmp_path / "values"
        source.write_text(
            "#include <stddef.h>\n#include <stdio.h>\n#include <cgnetd/abi.h>\n"
            f"int main(void) {{ long v[] = {{ {expressions} }};\n"
            'for (size_t i = 0; i < sizeof(v) / sizeof(*v); i++) printf("%ld\\n", v[i]); }\n'
        )
        subprocess.run([clang, f"-I{TOP}/bpf/include", source, "-o", program], check=True)
        return [int(line) for line in subprocess.check_output([program]).split()]

    return values


@pytest.fixture
def cgroup_root(private_cgroup: PrivateCgroup) -> Iterator[CgroupRoot]:
    """The private cgroup as a managed root."""
    with CgroupRoot(private_cgroup.path) as root:
        yield root


@pytest.fixture
def pin_dir(bpffs: Path) -> Path:
    """Where a daemon would pin; not made yet."""
    return bpffs / "cgnetd"


@pytest.fixture
def store(pin_dir: Path, cgroup_root: CgroupRoot) -> Iterator[Store]:
    """A new store for the private cgroup."""
    with Store.open(pin_dir, cgroup_root, create=True) as opened:
        yield opened
