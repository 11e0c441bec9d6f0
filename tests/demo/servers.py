# SPDX-License-Identifier: Apache-2.0
"""Tiny servers for the demo: HTTP, DNS and a UDP sink, each a thread in the demo's own, ungoverned process.

Must not know of policies.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

ANSWER = socket.inet_aton("192.0.2.7")  # to every name asked for


class Http(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"hello\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The demo's own table tells what happened."""


class HttpServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), Http)


class Dns(socketserver.BaseRequestHandler):
    """One A record for any question, RFC 1035 in the smallest way."""

    FLAGS: ClassVar[bytes] = b"\x81\x80"  # response, recursion desired and available, no error

    def handle(self) -> None:
        query, reply_socket = self.request
        end = query.index(b"\0", 12) + 5  # the name, its type and its class
        record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + ANSWER
        reply = query[:2] + self.FLAGS + b"\0\1\0\1\0\0\0\0" + query[12:end] + record
        reply_socket.sendto(reply, self.client_address)


class DnsServer(socketserver.ThreadingUDPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        super().__init__((host, port), Dns)


class Sink(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        """What is sent here has arrived, and that is all."""


class SinkServer(socketserver.UDPServer):
    def __init__(self, host: str, port: int) -> None:
        super().__init__((host, port), Sink)


def serve(servers: list[socketserver.BaseServer]) -> None:
    """Start them. They end with the process."""
    for server in servers:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 60}, daemon=True).start()
