# SPDX-License-Identifier: Apache-2.0
"""Real servers behind the redirects, each private and thrown away: database, key-value store, shell, QUIC.

Must not know of redirects.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from clients.policies import FAMILIES, POSTGRES, QUIC, REDIS, SSH
from clients.stage import Stage, program, stop

# It refuses to run as root. The directory is on a tmpfs that ends with the stage.
_POSTGRES = """
set -e
cluster=/run/cluster
rm -rf "$cluster"
install -d -o postgres -g postgres -m 700 "$cluster"
cd "$cluster"
exec setpriv --reuid postgres --regid postgres --clear-groups /bin/sh -c '
    "$0/initdb" -D . -A trust -U postgres --locale C -E UTF8 --no-sync --no-instructions >/dev/null
    exec "$0/postgres" -D . -p "$1" -k "" -h 127.0.0.1,::1 -F' "$1" "$2"
"""

_SSHD = """\
Port {port}
ListenAddress 127.0.0.1
ListenAddress ::1
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/user_key.pub
StrictModes no
PidFile none
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
"""


def _both(kind: str, port: int) -> list[tuple[str, int]]:
    return [(f"{kind}{family.table}", port) for family in FAMILIES]


@contextmanager
def postgres(stage: Stage) -> Iterator[None]:
    """A cluster that trusts user postgres from everywhere."""
    initdb = program("postgresql", "/usr/lib/postgresql/*/bin/initdb")
    command = ["/bin/sh", "-c", _POSTGRES, "sh", str(Path(initdb).parent), str(POSTGRES.actual)]
    server = stage.serve(command, _both("tcp", POSTGRES.actual))
    try:
        yield
    finally:
        stop(server)


@contextmanager
def redis(stage: Stage) -> Iterator[None]:
    """It keeps nothing."""
    command = [program("redis-server", "redis-server"), "--port", str(REDIS.actual), "--save", ""]
    server = stage.serve([*command, "--bind", "127.0.0.1", "::1"], _both("tcp", REDIS.actual))
    try:
        yield
    finally:
        stop(server)


@contextmanager
def sshd(stage: Stage) -> Iterator[Path]:
    """Yields the directory of `user_key`, which lets root in, and of `host_key.pub`."""
    path = program("openssh-server", "sshd")
    directory = stage.directory / "sshd"
    directory.mkdir()
    keygen = program("openssh-client", "ssh-keygen")
    for name in ("host_key", "user_key"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", directory / name], check=True)
    (directory / "config").write_text(_SSHD.format(port=SSH.actual, directory=directory))
    server = stage.serve([path, "-D", "-e", "-f", str(directory / "config")], _both("tcp", SSH.actual))
    try:
        yield directory
    finally:
        stop(server)


@contextmanager
def quic(stage: Stage) -> Iterator[str]:
    """HTTP/3 on both loopback addresses; yields what its page /page.txt holds."""
    path = program("ngtcp2-server", "gtlsserver")
    directory = stage.directory / "quic"
    directory.mkdir()
    text = "a page by QUIC\n" * 1000  # many packets
    (directory / "page.txt").write_text(text)
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    request = [program("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    request += ["-nodes", "-subj", "/CN=quic.test", "-days", "2", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(request, check=True, capture_output=True)
    with ExitStack() as running:
        for family in FAMILIES:
            command = [path, "-q", "-d", str(directory), family.actual, str(QUIC.actual), str(key), str(certificate)]
            server = stage.serve(command, [(f"udp{family.table}", QUIC.actual)])
            running.callback(stop, server)
        yield text
