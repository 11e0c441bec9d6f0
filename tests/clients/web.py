# SPDX-License-Identifier: Apache-2.0
"""An HTTP server that answers with what it knows of the connection, and a DNS server for the names below `test.`.

Runs as a process: `python -m clients.web PORT-OF-DNS HTTP-ADDRESS PORT ...`. Must not know of redirects.
"""

from __future__ import annotations

import itertools
import json
import socket
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

A, AAAA = 1, 28
ANSWERS = {A: socket.inet_pton(socket.AF_INET, "192.0.2.10"), AAAA: socket.inet_pton(socket.AF_INET6, "2001:db8::10")}
_requests = itertools.count(1)


class Http(BaseHTTPRequestHandler):
    """The answer is a JSON object, within a page: a browser shows it as it is."""

    def do_GET(self) -> None:
        facts = {
            "local": self.connection.getsockname()[:2],
            "peer": self.connection.getpeername()[:2],
            "path": self.path,
            "host": self.headers["Host"],
            "request": next(_requests),
        }
        body = f"<html><body>{json.dumps(facts)}</body></html>\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


class HttpServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), Http)


def answer(query: bytes) -> bytes:
    """One record of the type asked for (RFC 1035, 3596); names that begin with "v4." or "v6." have that family only."""
    end = query.index(b"\0", 12) + 5  # the name, its type and its class
    name, kind = query[12 : end - 4].lower(), int.from_bytes(query[end - 4 : end - 2], "big")
    only = {b"\x02v4": A, b"\x02v6": AAAA}.get(name[:3], kind)
    data = ANSWERS.get(kind, b"") if kind == only else b""
    record = b"\xc0\x0c" + query[end - 4 : end] + b"\0\0\0\x3c" + len(data).to_bytes(2, "big") + data if data else b""
    counts = b"\0\1" + (b"\0\1" if record else b"\0\0") + b"\0\0\0\0"
    return query[:2] + b"\x85\x80" + counts + query[12:end] + record


class DnsUdp(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        query, reply_socket = self.request
        reply_socket.sendto(answer(query), self.client_address)


class DnsTcp(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while len(length := self.rfile.read(2)) == 2:
            reply = answer(self.rfile.read(int.from_bytes(length, "big")))
            self.wfile.write(len(reply).to_bytes(2, "big") + reply)


class DnsUdpServer(socketserver.ThreadingUDPServer):
    daemon_threads = True


class DnsUdpServer6(DnsUdpServer):
    address_family = socket.AF_INET6


class DnsTcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


class DnsTcpServer6(DnsTcpServer):
    address_family = socket.AF_INET6


def main() -> None:
    port, places = int(sys.argv[1]), sys.argv[2:]
    servers: list[socketserver.BaseServer] = [
        HttpServer(h, int(p)) for h, p in zip(places[::2], places[1::2], strict=True)
    ]
    servers += [DnsUdpServer(("127.0.0.1", port), DnsUdp), DnsUdpServer6(("::1", port), DnsUdp)]
    servers += [DnsTcpServer(("127.0.0.1", port), DnsTcp), DnsTcpServer6(("::1", port), DnsTcp)]
    for server in servers:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 60}).start()


if __name__ == "__main__":
    main()
