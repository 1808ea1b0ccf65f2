"""The file with the devices' keys on the gateway: a line a key, `NAME NUMBER HEX`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gatehouse.messages.forms import KEY_BYTES
from gatehouse.messages.refusal import MessageError


def render(keys: Iterable[tuple[str, int, bytes]], header: str) -> bytes:
    """The file's content; `keys` are device, number, key."""
    lines = [f"{device} {number} {key.hex()}" for device, number, key in sorted(keys)]
    return "\n".join([f"# {header}", *lines, ""]).encode()


def read(path: Path) -> dict[str, dict[int, bytes]]:
    """The keys by device and number. Raises `MessageError`, which names the line and never what it holds."""
    try:
        text = path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is no text"
        raise MessageError(f"{path}: {why} (deploy the gateway again)") from None
    found: dict[str, dict[int, bytes]] = {}
    for place, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            device, number, key = line.split()
            numbers = found.setdefault(device, {})
            if int(number) in numbers or len(bytes.fromhex(key)) != KEY_BYTES:
                raise ValueError
            numbers[int(number)] = bytes.fromhex(key)
        except ValueError:
            raise MessageError(f"{path}: line {place} is not NAME NUMBER HEX (deploy the gateway again)") from None
    return found
