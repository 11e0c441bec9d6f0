# SPDX-License-Identifier: Apache-2.0
"""Transparent proxies written for iptables REDIRECT, configured as they would be for it.

Must not know policies.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from clients.policies import HAPROXY, REDSOCKS, SQUID
from clients.stage import Stage, program, stop
from support.sandbox import PrivateCgroup

SQUID_FORWARD = 13012

# A server without an address is where the client wanted to go.
_HAPROXY = f"""\
global
    maxconn 100
defaults
    mode tcp
    timeout connect 60s
    timeout client 60s
    timeout server 60s
listen intercepted
    bind 127.0.0.1:{HAPROXY.port}
    server origin * source {HAPROXY.leaves_from[0]}
"""

_SQUID = f"""\
http_port 127.0.0.1:{SQUID.port} intercept
http_port [::1]:{SQUID.port} intercept
http_port 127.0.0.1:{SQUID_FORWARD}
http_access allow all
acl v6 dst ipv6
tcp_outgoing_address {SQUID.leaves_from[1]} v6
tcp_outgoing_address {SQUID.leaves_from[0]} !v6
cache deny all
cache_log /dev/null
access_log none
pid_filename none
netdb_filename none
coredump_dir none
pinger_enable off
shutdown_lifetime 0 seconds
"""

_REDSOCKS = f"""\
base {{ log = "stderr"; daemon = off; redirector = iptables; }}
redsocks {{
    local_ip = 127.0.0.1; local_port = {REDSOCKS.port};
    type = http-connect; ip = 127.0.0.1; port = {SQUID_FORWARD};
}}
"""


@contextmanager
def haproxy(stage: Stage, cgroup: PrivateCgroup) -> Iterator[None]:
    """Goes to where the connection was meant to go, whatever it carries. It asks for that with IPv4 only."""
    config = stage.directory / "haproxy.cfg"
    config.write_text(_HAPROXY)
    command = [program("haproxy", "haproxy"), "-db", "-f", str(config)]
    server = stage.serve(command, [("tcp", HAPROXY.port)], cgroup=cgroup)
    try:
        yield
    finally:
        stop(server)


@contextmanager
def squid(stage: Stage, cgroup: PrivateCgroup) -> Iterator[None]:
    """Speaks HTTP and goes to where the connection was meant to go; also an ordinary proxy at SQUID_FORWARD."""
    config = stage.directory / "squid.conf"
    config.write_text(_SQUID)
    wanted = [("tcp", SQUID.port), ("tcp6", SQUID.port), ("tcp", SQUID_FORWARD)]
    server = stage.serve([program("squid", "squid"), "-N", "-d1", "-f", str(config)], wanted, cgroup=cgroup)
    try:
        yield
    finally:
        stop(server)


@contextmanager
def redsocks(stage: Stage, cgroup: PrivateCgroup) -> Iterator[None]:
    """Has the ordinary proxy connect it to where the connection was meant to go. IPv4 only."""
    path = program("redsocks", "redsocks")
    config = stage.directory / "redsocks.conf"
    config.write_text(_REDSOCKS)
    with squid(stage, cgroup):
        server = stage.serve([path, "-c", str(config)], [("tcp", REDSOCKS.port)], cgroup=cgroup)
        try:
            yield
        finally:
            stop(server)
