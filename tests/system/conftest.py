# SPDX-License-Identifier: Apache-2.0
"""Machines with a booted systemd for the tests here, and what is kept of them when a test fails.

These tests run only when they are asked for (`make test-system`): they build Debian trees when there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from beds import shell, trees
from beds.errors import BedError, LackingError
from beds.machine import Machine
from system.service import Service

HERE = Path(__file__).parent
_FAILED = pytest.StashKey[set[str]]()
_LOGS = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--distro", action="append", choices=sorted(trees.DISTROS), help="boot only this one; repeatable; default: all"
    )
    parser.addoption("--deb", type=Path, metavar="DIR", help="install packages from here; default: the checkout itself")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Whoever names only a directory above did not ask for these."""
    if not collection_path.is_relative_to(HERE):
        return None
    named = [(config.invocation_params.dir / word.partition("::")[0]).resolve() for word in config.args]
    return None if any(path.is_relative_to(HERE) for path in named) else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With --require-kernel, none of these may be skipped."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.kernel)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "distro" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--distro") or list(trees.DISTROS)
        metafunc.parametrize("distro", [trees.DISTROS[name] for name in asked], ids=asked, scope="session")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FAILED] = set()
    config.stash[_LOGS] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash[_LOGS]:
        terminalreporter.write_line(line)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        distro = item.callspec.params["distro"]
        assert isinstance(distro, trees.Distro)
        item.config.stash[_FAILED].add(distro.suite)
    return report


Boot = Callable[..., AbstractContextManager[Machine]]


@pytest.fixture(scope="session")
def boot(distro: trees.Distro, request: pytest.FixtureRequest) -> Boot:
    """Boots another machine with cgnetd installed; options as of shell.machine. Its logs stay if a test failed."""
    stash = request.config.stash

    @contextmanager
    def booting(prepare: Callable[[Path], None] | None = None, *, bare: Path | None = None) -> Iterator[Machine]:
        failed_before = distro.suite in stash[_FAILED]
        debs = request.config.getoption("--deb")
        try:
            with shell.machine(distro, debs and shell.newest_deb(debs, distro), prepare, bare=bare) as booted:
                yield booted
                if distro.suite in stash[_FAILED] and not failed_before:
                    booted.save_logs()
                    stash[_LOGS].append(f"logs of Debian {distro.version}: {booted.log_dir}")
        except LackingError as error:
            pytest.skip(str(error))
        except BedError as error:
            pytest.fail(str(error), pytrace=False)

    return booting


@pytest.fixture(scope="session")
def machine(boot: Boot) -> Iterator[Machine]:
    """One machine for all tests of a distribution."""
    with boot() as booted:
        booted.write(*Service.DIAL)
        yield booted


@pytest.fixture
def service(machine: Machine) -> Iterator[Service]:
    """cgnetd as a unit, stopped, without policies and with nothing in force; afterwards as well."""
    made = Service(machine)
    made.reset()
    yield made
    made.reset()
