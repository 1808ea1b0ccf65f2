"""`message.*`: signed messages, made and judged by hand."""

from __future__ import annotations

import sys
from pathlib import Path

from invoke import Context, task

from commands import common
from commands.common import SITE, told

MESSAGE = {
    **SITE,
    "topic": "devices/NAME/telemetry/KIND",
    "file": "where the content or the message is (default: standard input)",
    "key-file": "a file with the key, such as a bundle's hmac.key (default: the vault)",
    "number": "the key's number (default: the one in the registry, 1 with --key-file)",
}


def _input(file: str) -> bytes:
    try:
        return Path(file).read_bytes() if file else sys.stdin.buffer.read()
    except OSError as error:
        sys.exit(f"{file}: can't be read ({error.strerror})")


@task(help={**MESSAGE, "sequence": "its sequence number (default: the time)"})
@told
def sign(
    _: Context, topic: str, site: str = "lab", file: str = "", key_file: str = "", number: int = 0, sequence: int = -1
) -> None:
    """Sign what a device reports; the message goes to standard output, in hexadecimal on a terminal."""
    from deploy import messages

    made = messages.signed(common.site(site), topic, _input(file), key_file, number, sequence)
    sys.stdout.buffer.write(made.hex().encode() + b"\n" if sys.stdout.isatty() else made)


@task(help={**MESSAGE, "hex": "the message is given in hexadecimal"})
@told
def verify(
    _: Context, topic: str, site: str = "lab", file: str = "", key_file: str = "", number: int = 0, hex: bool = False
) -> None:
    """Verify a message of a device and show what it says; exit status 1 and the reason if it would be refused."""
    from deploy import messages

    given = _input(file)
    if hex:
        try:
            given = bytes.fromhex(given.decode("ascii"))
        except ValueError:
            sys.exit("message.verify: that is no hexadecimal")
    print(*messages.verified(common.site(site), topic, given, key_file, number), sep="\n")
