"""Writers of one vault: two at once, one that is killed, one whose disk is full. No change is lost, none half made."""

from __future__ import annotations

import errno
import functools
import multiprocessing
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatehouse.identity import files
from gatehouse.identity.files import Busy, locked
from gatehouse.identity.vault import Vault, VaultError, new_identity

fork = multiprocessing.get_context("fork")


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    new_identity(tmp_path / "key")
    return tmp_path / "key"


@pytest.fixture
def path(tmp_path: Path, identity: Path) -> Path:
    recipient = identity.read_text().splitlines()[0].removeprefix("# public key: ")
    with Vault.create(tmp_path / "home.age", [recipient]).transaction() as secrets:
        secrets.set("kept", "as it was")
    return tmp_path / "home.age"


def left_behind(path: Path) -> list[str]:
    return [file.name for file in path.parent.iterdir() if file.name.endswith(".new")]


def set_ten(path: Path, identity: Path, writer: int) -> None:
    vault = Vault.open(path, [identity])
    for number in range(10):
        vault.set(f"writer{writer}/{number}", f"{writer}-{number}")
        vault.save()


def test_concurrent_writers_lose_none_of_each_others_changes(path, identity):
    writers = [fork.Process(target=set_ten, args=(path, identity, writer)) for writer in range(4)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    assert [process.exitcode for process in writers] == [0] * 4
    vault = Vault.open(path, [identity])
    assert {name: vault.get_text(name) for name in vault.names("writer")} == {
        f"writer{writer}/{number}": f"{writer}-{number}" for writer in range(4) for number in range(10)
    }
    assert vault.get_text("kept") == "as it was"


def obtain_once(path: Path, identity: Path, results) -> None:
    results.put(Vault.open(path, [identity]).obtain("token", lambda: os.urandom(16)))


def test_concurrent_processes_obtain_one_and_the_same_secret(path, identity):
    results = fork.Queue()
    processes = [fork.Process(target=obtain_once, args=(path, identity, results)) for _ in range(5)]
    for process in processes:
        process.start()
    values = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert values == {Vault.open(path, [identity]).get("token")}


def test_a_stale_open_vault_keeps_what_others_wrote_and_deleted_meanwhile(path, identity):
    stale, other = Vault.open(path, [identity]), Vault.open(path, [identity])
    other.set("new", "theirs")
    other.delete("kept")
    other.save()
    stale.set("mine", "mine")
    stale.save()
    assert Vault.open(path, [identity]).names() == ["mine", "new"]


def test_a_transaction_that_raises_changes_nothing_in_memory_or_on_disk(path, identity):
    vault = Vault.open(path, [identity])
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError), vault.transaction():
        vault.set("a", "b")
        vault.delete("kept")
        1 / 0  # noqa: B018
    assert (vault.names(), path.read_bytes()) == (["kept"], before)
    with vault.transaction():
        vault.set("a", "b")
    assert Vault.open(path, [identity]).names() == ["a", "kept"]


def test_transactions_nest_and_the_outermost_writes_once(path, identity):
    vault = Vault.open(path, [identity])
    generation = vault.generation
    with vault.transaction():
        vault.obtain("a", lambda: "1")
        with vault.transaction():
            vault.obtain("b", lambda: "2")
        assert Vault.open(path, [identity]).names() == ["kept"]
    assert (Vault.open(path, [identity]).names(), vault.generation) == (["a", "b", "kept"], generation + 1)


def test_a_vault_just_made_writes_without_an_identity_until_another_has_changed_it(path, identity):
    recipient = Vault.open(path, [identity]).recipients
    made = Vault.create(path, recipient, overwrite=True)
    made.obtain("a", lambda: "1")
    made.obtain("b", lambda: "2")
    other = Vault.open(path, [identity])
    other.set("c", "3")
    other.save()
    with pytest.raises(VaultError, match="another process changed it; open it with an identity"):
        made.obtain("d", lambda: "4")
    assert Vault.open(path, [identity]).names() == ["a", "b", "c"]


def test_a_lock_that_another_holds_is_named_and_a_free_one_is_taken(path):
    with locked(path), pytest.raises(Busy, match=f"process {os.getpid()} is changing it"), locked(path, patience=0):
        pass
    with locked(path, patience=0):
        pass


STEPS = ("open", "write", "fchmod", "fsync", "replace")


def killed_at_step(path: Path, identity: Path, step: int) -> bool:
    """Change the vault in a child that is killed before its step-th system call; False when it had fewer."""
    child = os.fork()
    if child == 0:
        try:
            vault = Vault.open(path, [identity])
            count = 0
            real = {name: getattr(os, name) for name in STEPS}

            def counted(name, *args, **named):
                nonlocal count
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real[name](*args, **named)

            for name in STEPS:
                setattr(files.os, name, functools.partial(counted, name))
            vault.set("changed", str(step))
            vault.save()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_a_writer_killed_at_any_step_leaves_a_vault_that_opens_and_the_next_writer_goes_on(path, identity):
    steps = 0
    while killed_at_step(path, identity, steps + 1):
        steps += 1
        vault = Vault.open(path, [identity])
        assert vault.get_text("kept") == "as it was"
        assert vault.generation - Vault.open(vault.previous, [identity]).generation in (0, 1)
        vault.set("after", str(steps))
        vault.save()
        assert left_behind(path) == []
    assert steps > 8
    assert Vault.open(path, [identity]).get_text("changed") == str(steps + 1)


@pytest.mark.parametrize("failing", ["write", "fsync", "fchmod", "replace", "open"])
@pytest.mark.parametrize("at", [1, 2])
def test_a_full_disk_costs_nothing_and_the_change_can_be_saved_later(path, identity, monkeypatch, failing, at):
    vault = Vault.open(path, [identity])
    vault.set("new", "value")
    before = path.read_bytes()
    real, count = getattr(os, failing), 0

    def fails(*args, **named):
        nonlocal count
        count += 1
        if count == at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, failing, fails)
        with pytest.raises(
            VaultError, match="not written .No space left on device., the vault is as it was; free some"
        ):
            vault.save()
    assert (path.read_bytes(), left_behind(path)) == (before, [])
    vault.save()
    assert Vault.open(path, [identity]).names() == ["kept", "new"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mounted = tmp_path / "small"
    mounted.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", mounted], capture_output=True)
    if done.returncode:
        pytest.skip("no right to mount a file system here")
    yield mounted
    subprocess.run(["umount", mounted], check=True)


def test_a_disk_that_is_really_full_costs_nothing(small_disk, identity):
    recipient = identity.read_text().splitlines()[0].removeprefix("# public key: ")
    path = small_disk / "home.age"
    with Vault.create(path, [recipient]).transaction() as secrets:
        secrets.set("kept", "as it was")
    before = path.read_bytes()
    vault = Vault.open(path, [identity])
    vault.set("big", os.urandom(80_000))
    with pytest.raises(VaultError, match="No space left on device"):
        vault.save()
    assert (path.read_bytes(), left_behind(path)) == (before, [])
    vault.set("big", b"small")
    vault.save()
    assert Vault.open(path, [identity]).names() == ["big", "kept"]


def test_a_write_beyond_the_file_size_limit_costs_nothing(path, identity):
    before = path.read_bytes()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        vault = Vault.open(path, [identity])
        vault.set("big", os.urandom(80_000))
        try:
            vault.save()
        except VaultError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert (path.read_bytes(), left_behind(path)) == (before, [])
    assert Vault.open(path, [identity]).get_text("kept") == "as it was"
