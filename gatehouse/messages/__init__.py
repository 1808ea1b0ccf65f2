"""Signed messages: `sign` on the device's side, `verify` and `ReplayGuard` on the receiver's. Standard library only.

message = sign(key, topic, b'{"temperature": 21.5}', number=1, sequence=7, time_ms=now)
found = verify({"kitchen-01": {1: key}}, topic, message)
"""

from gatehouse.messages.forms import KEY_BYTES, LARGEST, LARGEST_CONTENT, Keys, Message, sign, sign_json, verify
from gatehouse.messages.refusal import REASONS, MessageError, Reason, Refused
from gatehouse.messages.replay import ReplayGuard, Window

__all__ = [
    "KEY_BYTES", "LARGEST", "LARGEST_CONTENT", "REASONS", "Keys", "Message", "MessageError", "Reason", "Refused",
    "ReplayGuard", "Window", "sign", "sign_json", "verify",
]  # fmt: skip
