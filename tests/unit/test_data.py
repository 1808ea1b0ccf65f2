"""A database's backup: encrypted stream by stream, refused where it is not whole; and what is remembered of it."""

from __future__ import annotations

import io
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploy import backupnotes
from gatehouse.identity import age
from tests.unit.test_site_model import Site, description


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


NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def backed_up(tmp_path: Path) -> tuple[Site, backupnotes.Note]:
    site = Site(**{**description(), "state": tmp_path / "state"})
    file = tmp_path / "home.data"
    file.write_bytes(b"x" * 20)
    note = backupnotes.Note(NOW - timedelta(days=31), str(file), 20, "ab" * 32)
    backupnotes.write(site, "gw", note)
    return site, note


def test_of_a_gateway_that_was_never_backed_up_nothing_is_noted(backed_up: tuple[Site, backupnotes.Note]) -> None:
    site, note = backed_up
    assert backupnotes.last(site, "gw") == note
    assert backupnotes.last(site, "other") is None


def test_a_backup_is_relied_on_for_as_long_as_the_site_says_and_not_a_second_more(
    backed_up: tuple[Site, backupnotes.Note],
) -> None:
    _, note = backed_up
    assert note.wrong(NOW, 31) == ""
    assert (
        note.wrong(NOW + timedelta(seconds=1), 31) == "the last backup is 31 days old, at most 31 (./kit data.backup)"
    )
    assert "31 days old, at most 7" in note.wrong(NOW, 7)


def test_a_backup_of_another_size_than_was_written_is_none_and_one_that_was_put_elsewhere_is_one(
    backed_up: tuple[Site, backupnotes.Note],
) -> None:
    _, note = backed_up
    Path(note.file).write_bytes(b"x" * 19)
    assert "19 bytes, 20 were written" in note.wrong(NOW, 31)
    Path(note.file).unlink()
    assert note.wrong(NOW, 31) == ""


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"made": "soon", "file": "x", "size": 1, "sha256": ""}'])
def test_what_is_no_note_is_told_with_its_place(backed_up: tuple[Site, backupnotes.Note], content: str) -> None:
    site, _ = backed_up
    path = Path(str(site.state)) / "backup-gw.json"
    path.write_text(content)
    with pytest.raises(backupnotes.BackupNoteError, match=f"{path}: is no note of a backup"):
        backupnotes.last(site, "gw")


def test_where_no_note_can_be_written_the_operator_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file in the way")
    site = Site(**{**description(), "state": tmp_path / "state"})
    with pytest.raises(backupnotes.BackupNoteError, match="the backup is made"):
        backupnotes.write(site, "gw", backupnotes.Note(NOW, "x", 1, ""))
