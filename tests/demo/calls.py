# SPDX-License-Identifier: Apache-2.0
"""The calls of the demo: who makes them, with which client, and what the shipped examples say about them.

Values only. Must not know how they are run.
"""

from __future__ import annotations

from dataclasses import dataclass

OUTSIDE = ""  # the demo's own cgroup, which nothing governs

LISTED = "1.10.16.5"  # within the first network of the shipped list
WORLD = "198.51.100.7"  # stands for any host of the internet
UPSTREAM, UPSTREAM6 = "10.20.0.10", "2001:db8:20::10"
EXCEPTED = "10.20.255.9"
MANAGEMENT = "10.99.0.1"
DATABASE = "10.20.7.3"
METADATA = "169.254.169.254"
STUB, RESOLVER = "127.0.0.53", "10.0.0.2"

HTTP_SERVERS = (
    (LISTED, 80),
    (WORLD, 80),
    (UPSTREAM, 8080),
    (UPSTREAM6, 443),
    (EXCEPTED, 8080),
    (MANAGEMENT, 80),
    (DATABASE, 5432),
    (METADATA, 80),
)
DNS_SERVERS = ((STUB, 53), (RESOLVER, 53))
UDP_SINKS = ((WORLD, 514),)

NGINX = "/system.slice/nginx.service"
SHOP = "/system.slice/system-php\\x2dfpm.slice/php-fpm@shop.service"
BLOG = "/system.slice/system-php\\x2dfpm.slice/php-fpm@blog.service"
POSTGRES = "/system.slice/system-postgresql.slice/postgresql@16-main.service"
BACKUP = "/system.slice/backup-agent.service"
POSTFIX = "/system.slice/postfix.service"
CRON = "/system.slice/cron.service"
BATCH = "/batch.slice/nightly.scope"
CONTAINER = "/machine.slice/libpod-web.scope"


@dataclass(frozen=True, slots=True)
class Call:
    """One client run. `expect` is "ok" or the errno that its call must fail with; `rule` "policy/rule" decides."""

    cgroup: str
    command: tuple[str, ...]
    flow: tuple[str, str, str]  # hook, protocol, address:port, as cgnetctl explain takes them
    expect: str
    rule: str
    shadow: str = ""  # rule of an audit policy that would deny it
    answer: str = ""  # the client must print this, for those that do not tell by their exit code

    @property
    def title(self) -> str:
        return f"{self.command[0]} {self.flow[0]} {self.flow[1]} {self.flow[2]}"

    @property
    def denied(self) -> bool:
        return self.expect != "ok"


def curl(cgroup: str, place: str, expect: str, rule: str, shadow: str = "") -> Call:
    words = ("curl", "-sv", "--noproxy", "*", "--max-time", "4", "-o", "/dev/null", f"http://{place}/")
    return Call(cgroup, words, ("connect", "tcp", place), expect, rule, shadow)


def dig(cgroup: str, address: str, expect: str, rule: str) -> Call:
    words = ("dig", "+short", "+tries=1", "+time=2", f"@{address}", "www.example.org")
    return Call(cgroup, words, ("connect", "udp", f"{address}:53"), expect, rule, answer="192.0.2.7")


def datagram(cgroup: str, place: str, expect: str, rule: str) -> Call:
    return Call(cgroup, ("socat", "-u", "-", f"UDP-SENDTO:{place}"), ("sendmsg", "udp", place), expect, rule)


def listen(cgroup: str, port: int, expect: str, rule: str) -> Call:
    words = ("socat", "-u", f"TCP4-LISTEN:{port},accept-timeout=0.1", "OPEN:/dev/null")
    return Call(cgroup, words, ("bind", "tcp", f"0.0.0.0:{port}"), expect, rule)


GOVERNED = (
    curl(OUTSIDE, f"{LISTED}:80", "ok", ""),
    curl(NGINX, f"{UPSTREAM}:8080", "ok", "web-service/upstreams"),
    curl(NGINX, f"[{UPSTREAM6}]:443", "ok", "web-service/upstreams"),
    curl(NGINX, f"{EXCEPTED}:8080", "ECONNREFUSED", "web-service/rest"),
    curl(NGINX, f"{LISTED}:80", "EPERM", "guard-system/listed-networks"),
    curl(NGINX, f"{MANAGEMENT}:80", "EHOSTUNREACH", "guard-system/management"),
    dig(NGINX, STUB, "ok", "web-service/resolver"),
    listen(NGINX, 443, "ok", "web-service/http"),
    listen(NGINX, 8081, "EPERM", "web-service/default.bind"),
    curl(BACKUP, f"{LISTED}:80", "ok", "default_action"),
    curl(POSTGRES, f"{DATABASE}:5432", "ok", "postgres/replication"),
    curl(POSTGRES, f"{WORLD}:80", "EPERM", "postgres/default.egress"),
    dig(BATCH, RESOLVER, "ok", "batch-offline/dns"),
    curl(BATCH, f"{UPSTREAM}:8080", "ENETUNREACH", "batch-offline/everything-else"),
    datagram(BATCH, f"{WORLD}:514", "ENETUNREACH", "batch-offline/everything-else"),
    curl(CONTAINER, f"{WORLD}:80", "ok", "containers/default.egress"),
    curl(CONTAINER, f"{UPSTREAM}:8080", "EHOSTUNREACH", "containers/inside"),
    curl(CRON, f"{METADATA}:80", "EACCES", "baseline/cloud-metadata"),
    curl(CRON, f"{WORLD}:80", "ok", "default_action"),
    curl(POSTFIX, f"{WORLD}:80", "ok", "default_action", shadow="mail-strict/default.egress"),
)

# Made while the daemon cannot run: their cgroups did not exist before.
WHILE_STOPPED = (
    curl(SHOP, f"{EXCEPTED}:8080", "ECONNREFUSED", "web-service/rest"),
    curl(SHOP, f"{UPSTREAM}:8080", "ok", "web-service/upstreams"),
)
AFTER_KILL = (
    curl(BLOG, f"{EXCEPTED}:8080", "ECONNREFUSED", "web-service/rest"),
    curl(BLOG, f"{UPSTREAM}:8080", "ok", "web-service/upstreams"),
)


def addresses() -> tuple[str, ...]:
    """Every address that a server of the demo listens on, for the loopback device of its network namespace."""
    found = {address for address, _ in (*HTTP_SERVERS, *DNS_SERVERS, *UDP_SINKS)}
    return tuple(sorted(address for address in found if not address.startswith("127.")))
