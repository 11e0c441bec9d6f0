# SPDX-License-Identifier: Apache-2.0
"""The addresses that clients ask for, where the policies send them, and those policies. Must not know programs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """Addresses of one IP version: one that exists nowhere, and the one its servers listen on."""

    asked: str
    actual: str

    @property
    def in_url(self) -> str:
        return f"[{self.asked}]" if ":" in self.asked else self.asked

    @property
    def table(self) -> str:
        """What the kernel appends to the names of its tables of sockets."""
        return "6" if ":" in self.asked else ""


V4 = Family("192.0.2.10", "127.0.0.1")
V6 = Family("2001:db8::10", "::1")
FAMILIES = (V4, V6)


@dataclass(frozen=True, slots=True)
class Port:
    """A port that is asked for and the one that its server has."""

    protocol: str
    asked: int
    actual: int


WEB = Port("tcp", 80, 8080)
DNS = Port("udp", 53, 5353)
DNS_TCP = Port("tcp", 53, 5353)
POSTGRES = Port("tcp", 5432, 15432)
REDIS = Port("tcp", 6379, 16379)
SSH = Port("tcp", 22, 10022)
QUIC = Port("udp", 443, 14433)
PORTS = (WEB, DNS, DNS_TCP, POSTGRES, REDIS, SSH, QUIC)


@dataclass(frozen=True, slots=True)
class Detour:
    """A proxy that takes what is meant for origins that do exist, and the addresses it leaves from itself."""

    name: str
    port: int  # where the proxy listens
    origins: tuple[str, ...]
    leaves_from: tuple[str, ...]


HAPROXY = Detour("haproxy", 13001, ("192.0.2.81",), ("127.0.0.81",))
SQUID = Detour("squid", 13002, ("192.0.2.82", "2001:db8::82"), ("127.0.0.82", "2001:db8::f082"))
REDSOCKS = Detour("redsocks", 13003, ("192.0.2.83",), ("127.0.0.82",))  # by way of squid
DETOURS = (HAPROXY, SQUID, REDSOCKS)


def present() -> list[str]:
    """What the loopback device must have for the detours, with prefix lengths."""
    found = {address for detour in DETOURS for address in (*detour.origins, *detour.leaves_from)}
    return sorted(f"{a}/128" if ":" in a else f"{a}/32" for a in found if not a.startswith("127."))


_REDIRECT = """\
    - name: {name}
      action: redirect
      to: [{to}]
      protocols: [{protocol}]
      ports: [{port}]
      redirect: {{to: [{targets}]}}
"""


def _rule(name: str, to: tuple[str, ...], protocol: str, port: int, actual: int) -> str:
    targets = ", ".join(f'"[::1]:{actual}"' if ":" in address else f'"127.0.0.1:{actual}"' for address in to)
    quoted = ", ".join(f'"{address}"' for address in to)
    return _REDIRECT.format(name=name, to=quoted, protocol=protocol, port=port, targets=targets)


def app() -> str:
    """Governs /app: every virtual address is redirected, nothing else can be reached."""
    rules = [
        _rule(f"{p.protocol}-{p.asked}", tuple(f.asked for f in FAMILIES), p.protocol, p.asked, p.actual) for p in PORTS
    ]
    rules += [_rule(d.name, d.origins, "tcp", WEB.asked, d.port) for d in DETOURS]
    return (
        "apiVersion: cgnetd/v1\nkind: Policy\nmetadata: {name: app}\nspec:\n  subject: {cgroups: [/app]}\n  egress:\n"
        + "".join(rules)
        + "    - {name: rest, action: deny, errno: EHOSTUNREACH}\n"
    )


PROXY = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: proxy}
spec:
  subject: {cgroups: [/proxy]}
  egress:
    - {name: all, action: allow, to: [any]}
  default: {egress: deny}
"""
