"""First process of a field host: answers on port 7, TCP and UDP, with its name and the address asked; ends on SIGTERM.

A field host that answers is what makes a refused connection mean something: those allowed do reach the same port.
`internet` redirects every port of its service addresses here.
"""

import asyncio
import contextlib
import os
import signal
import socket

PORT = 7
NAME = socket.gethostname()


async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say who was reached and close."""
    address = writer.get_extra_info("sockname")[0]
    with contextlib.suppress(OSError):
        writer.write(f"{NAME} {address}\n".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()


class Echo(asyncio.DatagramProtocol):
    """Sends back each datagram behind the host's name."""

    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, sender: tuple[str, int]) -> None:
        self.transport.sendto(NAME.encode() + b" " + data[:512], sender)


def reap() -> None:
    """Children of killed `docker exec`s come here."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


async def main() -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    loop.add_signal_handler(signal.SIGCHLD, reap)
    await asyncio.start_server(answer, ["0.0.0.0", "::"], PORT)  # noqa: S104 (a host that is there to be reached)
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        datagrams.bind((address, PORT))
        await loop.create_datagram_endpoint(Echo, sock=datagrams)
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(main())
