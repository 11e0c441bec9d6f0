# SPDX-License-Identifier: Apache-2.0
"""Debian packages of the checkout, built in a tree of the distribution that they are for, and kept.

Must not know what is in them, nor who installs them.
"""

from __future__ import annotations

import functools
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from beds import cache, commands, trees
from beds.install import TOP

OLDER_VERSION = "0.0.1"
_PLACE = Path("var/lib/packages")
_TOOLS = ("build-essential", "lintian", "rpm")
_INSTALL = r"""
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -q install -y --no-install-recommends "$@"
apt-get clean
rm -rf /var/lib/apt/lists/*
"""
# apt-get satisfy takes dependencies as packages name them.
_SATISFY = _INSTALL.replace('"$@"', '"$@" && apt-get -q satisfy -y --no-install-recommends "$0"')
_STAGED = "cp -a /run/input /tmp/cgnetd && cd /tmp/cgnetd\n"
_BUILD_RPM = f"""{_STAGED}
packaging/build-rpm.sh --staged "/$0"
sed 's/^Version:.*/Version: {OLDER_VERSION}/' -i packaging/rpm/cgnetd.spec
packaging/build-rpm.sh --staged "/$0/older"
"""
_BUILD = rf"""{_STAGED}
packaging/build-deb.sh --lint --staged
mkdir -p "/$0/older"
mv ../cgnetd_*.deb "/$0/"
dpkg-deb --field "/$0"/*.deb Depends >"/$0/depends"
dpkg-deb --raw-extract "/$0"/*.deb ../older
sed -i 's/^Version: .*/Version: {OLDER_VERSION}/' ../older/DEBIAN/control
dpkg-deb --root-owner-group --build ../older "/$0/older/cgnetd.deb"
"""


@dataclass(frozen=True, slots=True)
class Built:
    """`older`: the same package with a version below all others. `depends`: as it says it."""

    deb: Path
    older: Path
    depends: str


@functools.cache
def built(distro: trees.Distro) -> Built:
    """The package of the checkout as it is when this is first asked, without what lintian warns of. BedError."""
    found = _build(distro, "deb", _BUILD)
    (deb,) = found.glob("*.deb")
    return Built(deb, found / "older/cgnetd.deb", (found / "depends").read_text(encoding="utf-8").strip())


@functools.cache
def built_rpm(distro: trees.Distro) -> tuple[Path, Path]:
    """The rpm of the checkout, as `built`, and one with a version below all others. BedError."""
    found = _build(distro, "rpm", _BUILD_RPM)
    (rpm,), (older,) = found.glob("*.rpm"), found.glob("older/*.rpm")
    return rpm, older


def _build(distro: trees.Distro, kind: str, script: str) -> Path:
    """The directory that `script` is given the path of, without the first slash; it runs where all tools are."""
    builder = trees.layer(
        f"{distro.suite}-builder", trees.system(distro), ["/bin/sh", "-ec", _SATISFY, _build_depends(), *_TOOLS]
    )
    with tempfile.TemporaryDirectory() as given:
        commands.run([os.fspath(TOP / "packaging/stage.sh"), given])
        files = sorted(path for path in Path(given).rglob("*") if path.is_file())
        digest = cache.key(*(part for path in files for part in (str(path.relative_to(given)), path.read_bytes())))
        command = ["/bin/sh", "-ec", script, str(_PLACE), digest]
        layers = (builder, *trees.system(distro))
        return trees.layer(f"{distro.suite}-{kind}", layers, command, {"BED_INPUT": given}) / _PLACE


def ready(distro: trees.Distro, depends: str, *others: str) -> Path:
    """A layer with what a package depends on, and other packages, so that it can be installed without a network."""
    return trees.layer(f"{distro.suite}-ready", trees.system(distro), ["/bin/sh", "-ec", _SATISFY, depends, *others])


def _build_depends() -> str:
    control = (TOP / "packaging/debian/control").read_text(encoding="utf-8")
    found = re.search(r"^Build-Depends:((?:\n .*)+)", control, re.MULTILINE)
    assert found
    return " ".join(found.group(1).split())
