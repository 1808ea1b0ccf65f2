"""Listeners on the far side: they answer on TCP and UDP, and remember what they heard, so that what got through one way
but never back is seen too."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from typing import Any

from gatehouse.proof.probes.reach import ANSWER_TIMEOUT, Probe, Result, patient

_heard: list[str] = []
_lock = threading.Lock()


def listen(probe: Probe) -> Result:
    """Opens each of `ports` (`"8883/tcp"`) on every address of this position. They stay for the agent's life."""
    selector = selectors.DefaultSelector()
    problems: dict[str, str] = {}
    for label in probe["ports"]:
        port, _, transport = label.partition("/")
        for family in (socket.AF_INET, socket.AF_INET6):
            kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
            opened = None
            try:
                opened = socket.socket(family, kind)
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    # It may have more addresses than one: the answer comes from the one that was asked (RFC 3542 §6.2).
                    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
                opened.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", int(port)))  # noqa: S104
                if transport == "tcp":
                    opened.listen(128)
                opened.setblocking(False)
                selector.register(opened, selectors.EVENT_READ, (transport, int(port)))
            except OSError as error:
                if opened is not None:
                    opened.close()
                problems[f"{label} {'IPv6' if family == socket.AF_INET6 else 'IPv4'}"] = str(error)
    threading.Thread(target=_serve, args=(selector,), daemon=True).start()
    return {"outcome": "error" if problems else "listening", **({"error": problems} if problems else {})}


def _serve(selector: selectors.BaseSelector) -> None:
    while True:
        for key, _ in selector.select():
            listener: Any = key.fileobj
            transport, port = key.data
            with contextlib.suppress(OSError):
                if transport == "udp":
                    message, asked, _, sender = listener.recvmsg(2048, socket.CMSG_SPACE(20))
                    _note(message, transport, port, sender[0])
                    listener.sendmsg([message[:512]], asked, 0, sender)
                else:
                    connection, sender = listener.accept()
                    threading.Thread(target=_answer, args=(connection, port, sender[0]), daemon=True).start()


def _answer(connection: socket.socket, port: int, sender: str) -> None:
    with contextlib.suppress(OSError), connection:
        connection.settimeout(patient(ANSWER_TIMEOUT))
        message = connection.recv(2048)
        _note(message, "tcp", port, sender)
        connection.sendall(message[:512])


def _note(message: bytes, transport: str, port: int, sender: str) -> None:
    with _lock:
        if len(_heard) < 20_000:
            _heard.append(f"{message[:100].decode('utf-8', 'replace').strip()} on {port}/{transport} from {sender}")


def heard(_: Probe) -> Result:
    """What the listeners of this position have heard so far: `"TEXT on PORT/TRANSPORT from ADDRESS"`."""
    with _lock:
        return {"outcome": "answered", "heard": list(_heard)}
