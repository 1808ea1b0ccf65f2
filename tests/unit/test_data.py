"""A database's backup on its way: encrypted stream by stream, and refused where it is not whole."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest

from gatehouse.identity import age


class Sink:
    """Keeps what is written, up to a limit; then it fails as a full disk does."""

    def __init__(self, room: int | None = None) -> None:
        self.data, self._room = b"", room

    def write(self, data: bytes) -> int:
        if self._room is not None and len(self.data) + len(data) > self._room:
            raise OSError(28, "No space left on device")
        self.data += bytes(data)
        return len(data)

    def flush(self) -> None:
        pass


@pytest.fixture(scope="module")
def key() -> tuple[str, str]:
    return age.generate()


def sealed(content: bytes, recipient: str) -> bytes:
    out = Sink()
    age.encrypt_stream(io.BytesIO(content), out, [recipient])
    return out.data


@pytest.mark.parametrize("size", [0, 1, 65_536, 1_000_000])
def test_what_was_encrypted_as_a_stream_comes_back_and_any_age_program_reads_it(
    key: tuple[str, str], size: int
) -> None:
    content = random.Random(size).randbytes(size)  # noqa: S311
    written, out = sealed(content, key[1]), Sink()
    age.decrypt_stream(io.BytesIO(written), out, [key[0]])
    assert out.data == content
    assert age.decrypt(written, [key[0]]) == content


@pytest.mark.parametrize("end", [-1, -100, 70_000, 300, 0])
def test_a_stream_that_was_cut_short_is_damaged(key: tuple[str, str], end: int) -> None:
    written = sealed(b"x" * 200_000, key[1])
    age.decrypt_stream(io.BytesIO(written), Sink(), [key[0]])
    with pytest.raises(age.Damaged):
        age.decrypt_stream(io.BytesIO(written[:end]), Sink(), [key[0]])


def test_a_stream_in_which_one_bit_differs_is_damaged_and_what_came_before_is_true(key: tuple[str, str]) -> None:
    content = b"y" * 300_000
    written = bytearray(sealed(content, key[1]))
    written[200_000] ^= 1
    out = Sink()
    with pytest.raises(age.Damaged):
        age.decrypt_stream(io.BytesIO(bytes(written)), out, [key[0]])
    assert content.startswith(out.data) and len(out.data) < len(content)


def test_somebody_else_s_key_opens_nothing(key: tuple[str, str]) -> None:
    with pytest.raises(age.WrongIdentity):
        age.decrypt_stream(io.BytesIO(sealed(b"z", key[1])), Sink(), [age.generate()[0]])


def test_a_full_disk_is_told_as_such_both_ways(key: tuple[str, str], tmp_path: Path) -> None:
    written = sealed(b"w" * 300_000, key[1])
    with pytest.raises(OSError, match="No space left"):
        age.decrypt_stream(io.BytesIO(written), Sink(room=100_000), [key[0]])
    with pytest.raises(OSError, match="No space left"):
        age.encrypt_stream(io.BytesIO(b"w" * 300_000), Sink(room=100_000), [key[1]])
