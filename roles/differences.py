"""What an operation found otherwise than declared, told to whoever listens: `invoke drift` does, a deploy does not."""

from __future__ import annotations

from typing import Any

HEARD = "gatehouse_differences"


def differs(data: dict[str, Any], kind: str, name: str, how: str) -> None:
    """Notes a difference of the host whose `connector_data` this is: kind (file, unit, …), its name, what is wrong.

    Nothing secret: names, modes, digests and counts, never content.
    """
    heard = data.get(HEARD)
    if heard is not None:
        heard.append((kind, name, how))
