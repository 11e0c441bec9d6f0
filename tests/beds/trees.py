# SPDX-License-Identifier: Apache-2.0
"""Debian trees in layers, each kept in the cache: the system, its kernel, the Python packages that cgnetd needs.

Layers are stacked by overlayfs, so none is ever changed by what runs on it. Must not know who boots them, nor cgnetd's
own code.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from beds import cache, commands
from beds.errors import BedError

MIRROR = "http://deb.debian.org/debian"
VENV = "/usr/lib/cgnetd/venv"
_PROGRAMS = "/var/lib/programs"
_HERE = Path(__file__).parent
_PYPROJECT = _HERE.parent.parent / "pyproject.toml"

# python3-systemd and python3-yaml: what would be compiled. dbus: systemd-run --wait and --pipe talk by it.
_PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "ca-certificates", "libbpf1", "iproute2", "procps", "socat"),
    *("python3", "python3-venv", "python3-systemd", "python3-yaml"),
)
# The compiler: tests bring small C programs.
_KERNEL_PACKAGES = ("linux-image-cloud-amd64", "initramfs-tools", "gcc", "libc6-dev")
_COMPILER_PACKAGES = ("clang", "llvm", "make", "libbpf-dev", "linux-libc-dev")
_TESTERS = ("pytest", "hypothesis")  # of the extra `test`: what a bed runs; it checks no types

# Of every system: one identity, so that no boot is the first; nobody who waits for a terminal or for the network.
_FINISH = r"""
set -e
echo cafe5eedcafe4eed8eedcafe5eedcafe > /etc/machine-id
echo bed > /etc/hostname
rm -f /etc/resolv.conf && touch /etc/resolv.conf
systemctl --quiet mask console-getty.service getty@tty1.service getty-static.service serial-getty@ttyS0.service \
    systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer \
    e2scrub_all.timer
apt-get clean
rm -rf /var/lib/apt/lists/* /var/log/*.log
"""
_APT_UPDATE = "export DEBIAN_FRONTEND=noninteractive && apt-get -q update"
_APT_CLEAN = "apt-get clean && rm -rf /var/lib/apt/lists/*"
_INSTALL = f"""
{_APT_UPDATE}
apt-get -q install -y --no-install-recommends "$@"
{_APT_CLEAN}
"""
_INSTALL_KERNEL = rf"""{_INSTALL}rm /boot/System.map-*
cat > /sbin/bed-init << 'END'
#!/bin/sh
mount -t tmpfs -o mode=0755 tmpfs /mnt && mkdir /mnt/bed && tar -xf /dev/vdb -C /mnt/bed && exec /bin/sh /mnt/bed/init
END
chmod 755 /sbin/bed-init
"""
_INSTALL_PYTHON = r"""
set -e
python3 -m venv --system-site-packages "$0"
"$0"/bin/pip install --quiet --no-cache-dir --disable-pip-version-check "$@"
"""


@dataclass(frozen=True, slots=True)
class Distro:
    """`version` as in VERSION_ID; `kernel`: what `uname -r` of its kernel package begins with."""

    suite: str
    version: str
    systemd: int
    kernel: str


DISTROS = {
    distro.suite: distro for distro in (Distro("trixie", "13", 257, "6.12"), Distro("bookworm", "12", 252, "6.1"))
}


def system(distro: Distro) -> tuple[Path, ...]:
    """The layers of a minimal system with systemd and without a kernel, topmost first."""
    commands.require("debootstrap", "unshare")
    packages = ",".join(_PACKAGES)
    command = ["debootstrap", "--variant=minbase", f"--include={packages}", distro.suite]
    base = cache.kept(
        f"{distro.suite}-base-{cache.key(MIRROR, *command)}",
        lambda path: commands.run([*command, os.fspath(path), MIRROR]),
    )
    with suppress(FileExistsError):
        base.with_name(distro.suite).symlink_to(base.name)  # for whoever wants any tree of the distribution
    return layer(f"{distro.suite}-bed", (base,), ["/bin/sh", "-c", _FINISH]), base


def kernel(distro: Distro) -> Path:
    """A layer with the kernel, its modules and its first file system."""
    return layer(f"{distro.suite}-kernel", system(distro), ["/bin/sh", "-ec", _INSTALL_KERNEL, "sh", *_KERNEL_PACKAGES])


def package(distro: Distro, deb: Path) -> Path:
    """A layer with a Debian package and what it depends on, installed by apt."""
    script = f"{_APT_UPDATE}\napt-get -q install -y --no-install-recommends /run/input/*.deb\n{_APT_CLEAN}"
    command = ["/bin/sh", "-ec", script, cache.key(deb.read_bytes())]
    with tempfile.TemporaryDirectory() as given:
        shutil.copy(deb, given)
        return layer(f"{distro.suite}-package", system(distro), command, {"BED_INPUT": given})


def programs(distro: Distro, sources: Path) -> Path:
    """A directory with the programs of the kernel side (*.bpf.o), built by the distribution's own compiler."""
    files = _files(sources)
    digest = cache.key(*(part for path in files for part in (os.fspath(path.relative_to(sources)), path.read_bytes())))
    install = ["/bin/sh", "-ec", _INSTALL, "sh", *_COMPILER_PACKAGES]
    compiler = layer(f"{distro.suite}-compiler", system(distro), install)
    command = ["make", "--silent", "--directory=/run/input", f"OUT={_PROGRAMS}", f"DIGEST={digest}"]
    with tempfile.TemporaryDirectory() as given:
        for path in files:
            copied = Path(given, path.relative_to(sources))
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copied)
        built = layer(f"{distro.suite}-programs", (compiler, *system(distro)), command, {"BED_INPUT": given})
    return built / _PROGRAMS.lstrip("/")


def _files(sources: Path) -> list[Path]:
    return [path for path in sorted(sources.rglob("*")) if path.suffix in {".c", ".h"} or path.name == "Makefile"]


def image(distro: Distro) -> Path:
    """An ext4 file system of all layers: the system, its kernel, its Python packages. Boots with init=/sbin/bed-init,
    which unpacks the archive on the second disk into memory and goes on with its `init`.
    """
    layers = (python(distro), kernel(distro), *system(distro))
    size = "3G"  # sparse: what is not used costs nothing

    def build(path: Path) -> None:
        with tempfile.TemporaryDirectory(prefix=f"{path.name}-", dir=path.parent) as point:
            stack = ":".join(map(os.fspath, layers))
            script = 'mount -t overlay -o "lowerdir=$1" beds "$2" && exec mkfs.ext4 -q -d "$2" "$3" "$4"'
            inside = ["/bin/sh", "-c", script, "sh", stack, point, os.fspath(path), size]
            commands.run(["unshare", "--mount", "--propagation", "private", *inside])

    return cache.kept(f"{distro.suite}-image-{cache.key(*(path.name for path in layers))}", build)


def boot_files(distro: Distro) -> tuple[Path, Path]:
    """The kernel and its first file system."""
    boot = kernel(distro) / "boot"
    found = tuple(sorted(boot.glob(f"{name}-{distro.kernel}.*")) for name in ("vmlinuz", "initrd.img"))
    if not all(len(files) == 1 for files in found):
        raise BedError(f"boot Linux {distro.kernel}: {boot} has {', '.join(sorted(os.listdir(boot)))}")
    return found[0][0], found[1][0]


def python(distro: Distro) -> Path:
    """A layer with what cgnetd and its tests need besides Debian's packages, in VENV."""
    return layer(f"{distro.suite}-python", system(distro), ["/bin/sh", "-c", _INSTALL_PYTHON, VENV, *_requirements()])


def _requirements() -> list[str]:
    project = tomllib.loads(_PYPROJECT.read_text(encoding="utf-8"))["project"]
    tests = project["optional-dependencies"]["test"]
    return [*project["dependencies"], *(one for one in tests if one.startswith(_TESTERS))]


def layer(
    name: str, lower: Sequence[Path], command: Sequence[str], environment: Mapping[str, str] | None = None
) -> Path:
    """What `command` changes when it runs as root on `lower`; built again only for other ones of these."""

    def build(path: Path) -> None:
        path.mkdir()
        path.chmod(0o755)  # the directory becomes the root's: what runs as another user must get through
        with tempfile.TemporaryDirectory(prefix=f"{path.name}-", dir=path.parent) as work:
            point, scratch = Path(work, "point"), Path(work, "scratch")
            point.mkdir()
            scratch.mkdir()
            stack = ":".join(map(os.fspath, lower))
            places = (os.fspath(point), stack, os.fspath(path), os.fspath(scratch))
            inside = ["sh", os.fspath(_HERE / "within.sh"), *places, *command]
            commands.run(
                ["unshare", "--mount", "--propagation", "private", *inside], _environment() | dict(environment or {})
            )

    return cache.kept(f"{name}-{cache.key(*(path.name for path in lower), *command)}", build)


def _environment() -> dict[str, str]:
    """What holds inside: nothing of the caller's but how to get out, and the certificates of this host."""
    passed = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    return {**passed, "PATH": commands.PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", "PIP_CERT": bundle}
