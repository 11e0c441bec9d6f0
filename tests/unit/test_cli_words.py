# SPDX-License-Identifier: Apache-2.0
"""The words of a command line: hooks, protocols, addresses, subjects."""

from __future__ import annotations

import ipaddress

import pytest

from cgnetd.cli.endpoint import NAME_MAX, format_endpoint, format_name, parse_endpoint, parse_flow, parse_name
from cgnetd.cli.place import place
from cgnetd.cli.subject import Subject, assumed_path, resolve
from cgnetd.errors import UsageError
from cgnetd.policy.types import Flow, Hook, Protocol, SocketType


def number(text: str) -> int:
    return int(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    ("text", "family", "address", "port"),
    [
        ("10.0.0.1:443", 4, "10.0.0.1", 443),
        ("[2001:db8::1]:443", 6, "2001:db8::1", 443),
        ("[::ffff:10.0.0.1]:443", 4, "10.0.0.1", 443),
        ("0.0.0.0:0", 4, "0.0.0.0", 0),
        ("[::]:65535", 6, "::", 65535),
    ],
)
def test_parse_endpoint_reads_what_format_endpoint_writes(text: str, family: int, address: str, port: int) -> None:
    assert parse_endpoint(text) == (family, number(address), port)
    assert parse_endpoint(format_endpoint(family, number(address), port)) == (family, number(address), port)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("10.0.0.1", "10.0.0.1:PORT"),
        ("::1", "[::1]:PORT"),
        ("::1:443", "[::1:443]:PORT"),
        ("10.0.0.1:65536", "0 to 65535"),
        ("10.0.0.1:-1", "0 to 65535"),
        ("10.0.0.1:\u0663", "0 to 65535"),
        ("10.0.0.1:", "0 to 65535"),
        ("example.org:443", "not an address"),
        ("[::1", "[2001:db8::1]:443"),
        ("[::1]443", "[2001:db8::1]:443"),
        ("10.0.0.0/8:443", "not an address"),
        ("", "not an address"),
    ],
)
def test_parse_endpoint_says_what_is_accepted(text: str, complaint: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_endpoint(text)
    assert complaint in str(error.value)


def test_parse_endpoint_needs_no_port_where_the_protocol_has_none() -> None:
    assert parse_endpoint("::1", port_needed=False) == (6, 1, 0)


@pytest.mark.parametrize("hook", ["connect", "sendmsg"])
@pytest.mark.parametrize(("text", "address"), [("0.0.0.0:80", "127.0.0.1"), ("[::]:80", "::1")])
def test_parse_flow_turns_a_wildcard_destination_into_loopback(hook: str, text: str, address: str) -> None:
    assert parse_flow(hook, "tcp", text).address == number(address)


def test_parse_flow_keeps_a_wildcard_that_is_bound() -> None:
    assert parse_flow("bind", "udp", "[::]:53", v6_only=True) == Flow(Hook.BIND, Protocol.UDP, 6, 0, 53, v6_only=True)


def test_parse_flow_counts_mptcp_as_tcp() -> None:
    assert parse_flow("connect", "mptcp", "10.0.0.1:1").protocol is Protocol.TCP


def test_parse_flow_takes_no_address_for_socket() -> None:
    assert parse_flow("socket", "raw", None) == Flow(Hook.SOCKET, Protocol.OTHER, 4, 0, 0, raw=True)
    assert parse_flow("socket", "sctp", None).protocol is Protocol.SCTP


@pytest.mark.parametrize(
    ("text", "name"),
    [("/run/app.sock", b"/run/app.sock"), ("@app", b"\0app"), ("app.sock", b"app.sock"), ("/\udcff", b"/\xff")],
)
def test_parse_flow_takes_the_name_of_a_unix_socket(text: str, name: bytes) -> None:
    assert parse_flow("sendmsg", "unix", text) == Flow(Hook.SENDMSG, Protocol.OTHER, 1, 0, 0, name=name)
    assert (parse_name(text), format_name(name)) == (name, text)


@pytest.mark.parametrize(
    ("word", "family", "kind"), [("inet/stream", 4, SocketType.STREAM), ("inet6/raw", 6, SocketType.RAW)]
)
def test_parse_flow_takes_kinds_of_new_sockets(word: str, family: int, kind: SocketType) -> None:
    assert parse_flow("create", word, None) == Flow(Hook.CREATE, Protocol.OTHER, family, 0, 0, type=kind)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("listen", "tcp", "10.0.0.1:1"), "connect, sendmsg, bind, post_bind, socket, create"),
        (("connect", "raw", "10.0.0.1:1"), "socket only"),
        (("connect", "quic", "10.0.0.1:1"), "tcp, udp"),
        (("create", "tcp", None), "inet/stream"),
        (("create", "unix/stream", None), "inet6/dgram"),
        (("create", "inet/stream", "10.0.0.1:1"), "too much"),
        (("socket", "sctp", "10.0.0.1:1"), "too much"),
        (("bind", "unix", "/run/app.sock"), "connect and sendmsg only"),
        (("connect", "unix", None), "the name is missing"),
        (("connect", "unix", ""), "the name is missing"),
        (("connect", "unix", "/" + "a" * NAME_MAX), f"{NAME_MAX} bytes"),
        (("connect", "tcp", None), "ADDRESS:PORT is missing"),
    ],
)
def test_parse_flow_says_what_is_accepted(words: tuple[str, str, str | None], complaint: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_flow(*words)
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("nginx.service", "/system.slice/nginx.service"),
        ("php-fpm@blog.service", "/system.slice/system-php\\x2dfpm.slice/php-fpm@blog.service"),
        ("a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice"),
        ("-.slice", "/"),
        ("user-7.slice", "/user.slice/user-7.slice"),
        ("user@7.service", "/user.slice/user-7.slice/user@7.service"),
        ("session-3.scope", "/user.slice/user-1000.slice/session-3.scope"),
        ("app-firefox-1.scope", "/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox-1.scope"),
    ],
)
def test_assumed_path_is_where_systemd_puts_a_unit(name: str, path: str) -> None:
    assert assumed_path(name, 1000) == path


def test_resolve_takes_a_path_as_it_is() -> None:
    assert resolve("/a//b/", None) == Subject("/a/b")
    assert resolve("/", None).components == ()


def test_resolve_says_that_a_unit_without_a_cgroup_is_assumed() -> None:
    subject = resolve("nginx", None)
    assert subject.path == "/system.slice/nginx.service"
    assert "no cgroup now" in subject.notes[0]


@pytest.mark.parametrize("word", ["a/b", "", "/a/../b", "pid:x", "pid:1"])
def test_resolve_refuses_what_is_no_subject(word: str) -> None:
    with pytest.raises(UsageError):
        resolve(word, None)


def test_components_are_the_names_below_the_root() -> None:
    assert resolve("/system.slice/x.service", None).components == ("system.slice", "x.service")


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("10.0.0.7", 80, ""), "10.0.0.7:80"),
        (("2001:db8::7", 80, ""), "[2001:db8::7]:80"),
        (("::ffff:a00:7", 80, ""), "10.0.0.7:80"),
        (("::ffff:10.0.0.7", 80, ""), "10.0.0.7:80"),
        (("::ffff:1:2:3", 0, None), "[::ffff:1:2:3]:0"),
        (("", 0, "@bus"), "@bus"),
        ((None, None, None), ""),
    ],
)
def test_place_is_written_as_people_do(parts: tuple[str | None, int | None, str | None], text: str) -> None:
    assert place(*parts) == text
