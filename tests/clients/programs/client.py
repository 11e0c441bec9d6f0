# SPDX-License-Identifier: Apache-2.0
"""An ordinary Python program: what its sockets say of their peers, as JSON lines.

Arguments: HTTP-PORT DNS-PORT ADDRESS.
"""

import asyncio
import json
import socket
import sys
import urllib.request

QUERY = b"\x12\x34\1\0\0\1\0\0\0\0\0\0\3web\4test\0\0\1\0\1"


def say(what: str, *address: object) -> None:
    print(json.dumps([what, *address]))


class Resolver(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.answer = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.answer.set_result(addr)


async def stream(host: str, port: int) -> None:
    _, writer = await asyncio.open_connection(host, port)
    say("asyncio tcp", *writer.get_extra_info("peername")[:2])
    writer.close()
    await writer.wait_closed()


async def datagrams(host: str, port: int, connected: bool) -> None:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    where = {"remote_addr": (host, port)} if connected else {"family": family}
    transport, resolver = await loop.create_datagram_endpoint(Resolver, **where)
    transport.sendto(QUERY, None if connected else (host, port))
    say("asyncio udp connected" if connected else "asyncio udp", *(await asyncio.wait_for(resolver.answer, 60))[:2])
    transport.close()


def main() -> None:
    http, dns, host = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    with socket.create_connection((host, http), 60) as made:
        say("tcp", *made.getpeername()[:2])
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        made.settimeout(60)
        made.sendto(QUERY, (host, dns))
        say("udp", *made.recvfrom(512)[1][:2])
        made.connect((host, dns))
        made.send(QUERY)
        say("udp connected", *made.recvfrom(512)[1][:2])
        say("udp peer", *made.getpeername()[:2])
    asyncio.run(stream(host, http))
    for connected in (False, True):
        asyncio.run(datagrams(host, dns, connected))
    url = f"http://[{host}]/" if ":" in host else f"http://{host}/"
    with urllib.request.urlopen(url, timeout=60) as answer:
        print(answer.read().decode())


main()
