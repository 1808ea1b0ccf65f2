"""Signs and verifies messages by hand, with a key from a site's vault or from a file."""

from __future__ import annotations

import time
from pathlib import Path

from deploy import vaults
from gatehouse.identity.enrolment import hmac_secret
from gatehouse.messages import KEY_BYTES, MessageError, ReplayGuard, sign, verify
from gatehouse.messages.topics import parse
from gatehouse.site import Site


def key_of(site: Site, name: str, file: str) -> tuple[int, bytes]:
    """The number and the key of a device: from a file with 64 hexadecimal digits (then it is 1), or from the vault."""
    if file:
        try:
            key = bytes.fromhex(Path(file).read_text("ascii").strip())
        except OSError as error:
            raise MessageError(f"{file}: can't be read ({error.strerror}); name a bundle's hmac.key") from None
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise MessageError(f"{file}: is no key ({2 * KEY_BYTES} hexadecimal digits, as a bundle's hmac.key has)")
        return 1, key
    number = next((device.hmac_key for device in site.devices if device.name == name), None)
    if number is None:
        raise MessageError(f"device '{name}': has no key (`./kit enroll --name {name}`, or give --key-file)")
    return number, bytes.fromhex(vaults.open_vault(site).get_text(hmac_secret(name, number)))


def signed(site: Site, topic: str, content: bytes, file: str = "", number: int = 0, sequence: int = -1) -> bytes:
    """The message in the binary form, of now; its sequence number is the time in microseconds unless given."""
    known, key = key_of(site, _device(topic), file)
    now = time.time_ns()
    where = now // 1000 if sequence < 0 else sequence
    return sign(key, topic, content, number=number or known, sequence=where, time_ms=now // 1_000_000)


def verified(site: Site, topic: str, message: bytes, file: str = "", number: int = 0) -> list[str]:
    """What a message says, a line each. Raises `Refused` with the reason, also for its age."""
    device = _device(topic)
    known, key = key_of(site, device, file)
    found = verify({device: {number or known: key}}, topic, message, json_form=True)
    limits = site.messages
    ReplayGuard(1000 * limits.max_age_seconds, 1000 * limits.max_ahead_seconds).admit(
        found, time.time_ns() // 1_000_000
    )
    lines = [
        f"device    {found.device}",
        f"kind      {found.kind}",
        f"form      {'JSON' if found.form == 1 else 'binary'}",
    ]
    lines += [f"key       {found.key_number}", f"sequence  {found.sequence}", f"time      {found.time_ms} ms"]
    return [*lines, f"content   {ascii(found.content.decode('utf-8', 'replace'))[1:-1]}"]


def _device(topic: str) -> str:
    return parse(topic)[0]
