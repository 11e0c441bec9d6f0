# SPDX-License-Identifier: Apache-2.0
"""The stage of the demo: directories, mount, cgroups, addresses, servers, daemon; all private, all gone at the end.

Runs in a mount and a network namespace of its own, so that the mount and the addresses end with it in any case.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import calls
import servers

from cgnetd.kernel.cgroup import find_root

CHECKOUT = Path(__file__).resolve().parents[2]
EXAMPLES = CHECKOUT / "config" / "examples"
BIN = Path(sys.executable).parent
PREFIX = "cgnetd-demo-"
READY_S = 60.0

# What the examples take from the machine that they are written for.
LOCAL = (("/etc/cgnetd/sets/", ""), ("users: [alice, bob, 1007]", "users: [1001, 1002, 1007]"))


class Stage:
    """Use as a context manager. `root` is the managed cgroup, `events_path` where the daemon's stdout goes."""

    def __init__(self) -> None:
        self._exit = contextlib.ExitStack()
        self.daemon: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Stage:
        with self._exit:
            base = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir="/run"))
            self._exit.callback(shutil.rmtree, base)
            self.base = base
            self.policy_dir, self.events_path = base / "policy.d", base / "events.jsonl"
            self.log_path, self.socket_path = base / "log", base / "control.sock"
            self._mount_bpffs(base / "bpf")
            self.pin_dir = base / "bpf" / "cgnetd"
            self._make_cgroup()
            self._copy_policies()
            self._serve()
            self._exit.callback(self.stop_daemon)
            self._exit = self._exit.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # whoever is impatient must not keep us from tidying up
        self._exit.close()

    def cgroup(self, path: str) -> Path | None:
        """The cgroup at `path` below the managed root, made if it is not there; None for our own."""
        if path == calls.OUTSIDE:
            return None
        found = self.root / path.strip("/")
        found.mkdir(parents=True, exist_ok=True)
        return found

    def start_daemon(self) -> None:
        """Start the real daemon and wait until it answers. Raises RuntimeError with its log if it does not."""
        # Killed with us: with the last process of our mount namespace the pins go, and with them all enforcement.
        words = ["setpriv", "--pdeathsig", "KILL", str(BIN / "cgnetd")]
        words += ["--config", str(self.base / "cgnetd.yaml"), "--policy-dir", str(self.policy_dir)]
        words += ["--pin-dir", str(self.pin_dir), "--cgroup-root", str(self.root), "--audit", "stdout"]
        words += ["--control-socket", str(self.socket_path), "--set", "audit.window=1s"]
        with self.events_path.open("ab") as events, self.log_path.open("ab") as log:
            self.daemon = subprocess.Popen(words, stdout=events, stderr=log, stdin=subprocess.DEVNULL)
        wait_for("the daemon", self._ready)

    def stop_daemon(self, number: int = signal.SIGTERM) -> None:
        if self.daemon is not None:
            with contextlib.suppress(ProcessLookupError):
                self.daemon.send_signal(signal.SIGCONT)
                self.daemon.send_signal(number)
            self.daemon.wait(timeout=READY_S)
            self.daemon = None

    def ctl(self, *words: str) -> tuple[int, dict[str, Any]]:
        """Exit code and answer of `cgnetctl --json`."""
        ended = subprocess.run(
            [str(BIN / "cgnetctl"), "--control-socket", str(self.socket_path), "--json", *words],
            capture_output=True,
            text=True,
            timeout=READY_S,
            check=False,
        )
        return ended.returncode, json.loads(ended.stdout or "{}")

    def events(self) -> list[dict[str, Any]]:
        """Every whole line that the daemon has written so far."""
        lines = self.events_path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def _ready(self) -> bool:
        assert self.daemon is not None
        if self.daemon.poll() is not None:
            raise RuntimeError(f"cgnetd ended with {self.daemon.returncode}:\n{self.log_path.read_text()}")
        return self.ctl("status")[0] == 0

    def _mount_bpffs(self, path: Path) -> None:
        path.mkdir()
        subprocess.run(["mount", "-t", "bpf", "-o", "mode=0700", "bpf", path], check=True)
        self._exit.callback(lambda: subprocess.run(["umount", path], check=True))

    def _make_cgroup(self) -> None:
        tree = Path(find_root())
        for stale in tree.glob(PREFIX + "*"):
            if not Path("/proc", stale.name.removeprefix(PREFIX)).exists():
                remove_cgroup(stale)
        self.root = tree / f"{PREFIX}{os.getpid()}"
        self.root.mkdir()
        self._exit.callback(remove_cgroup, self.root)

    def _copy_policies(self) -> None:
        shutil.copytree(EXAMPLES / "sets", self.base / "sets")
        (self.base / "cgnetd.yaml").touch()
        self.policy_dir.mkdir()
        for example in sorted(EXAMPLES.glob("*.yaml")):
            text = example.read_text(encoding="utf-8")
            for written, here in LOCAL:
                text = text.replace(written, here or f"{self.base}/sets/")
            (self.policy_dir / example.name).write_text(text, encoding="utf-8")

    def _serve(self) -> None:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        for address in calls.addresses():
            length, words = (128, ["nodad"]) if ":" in address else (32, [])  # nodad: to be used at once
            subprocess.run(
                ["ip", "addr", "add", f"{address}/{length}", "dev", "lo", "noprefixroute", *words], check=True
            )
        servers.serve(
            [
                *(servers.HttpServer(host, port) for host, port in calls.HTTP_SERVERS),
                *(servers.DnsServer(host, port) for host, port in calls.DNS_SERVERS),
                *(servers.SinkServer(host, port) for host, port in calls.UDP_SINKS),
            ]
        )


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    """Look again and again. Raises RuntimeError after READY_S seconds."""
    deadline = time.monotonic() + READY_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {READY_S:.0f} s in vain for {what}")
        time.sleep(0.05)


def remove_cgroup(path: Path) -> None:
    """Kill everything in the cgroup and below, and remove it."""
    if not path.exists():
        return
    (path / "cgroup.kill").write_text("1")
    wait_for(f"{path} to empty", lambda: "populated 0" in (path / "cgroup.events").read_text())
    for directory in [*_below(path), path]:
        directory.rmdir()


def _below(path: Path) -> Iterator[Path]:
    for directory, names, _ in os.walk(path, topdown=False):
        yield from (Path(directory, name) for name in names)
