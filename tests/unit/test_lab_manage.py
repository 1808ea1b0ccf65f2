"""A lab of the same name that another checkout made: what runs is left alone, what is dead is cleared away."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from lab import manage
from lab.containers import STATE
from lab.errors import LabError


class _Namespace:
    def ip(self, *commands: str, force: bool) -> None:
        assert not commands


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    monkeypatch.setattr(manage.engine, "installed", lambda: True)
    monkeypatch.setattr(manage.engine, "connect", lambda *_, **__: None)
    monkeypatch.setattr(manage, "remove", lambda container: names.append(container.id))
    monkeypatch.setattr(manage, "left_over", lambda _: [])
    monkeypatch.setattr(manage, "Namespace", _Namespace)
    return names


def _containers(monkeypatch: pytest.MonkeyPatch, made_by: Path, **status: str) -> None:
    def of_lab(*_: object) -> dict[str, SimpleNamespace]:
        labels = {STATE: str(made_by)}
        return {host: SimpleNamespace(id=host, status=said, labels=labels) for host, said in status.items()}

    monkeypatch.setattr(manage, "of_lab", of_lab)


def _another(tmp_path: Path) -> Path:
    other = tmp_path / "elsewhere" / ".lab" / "lab"
    other.mkdir(parents=True)
    (other / "id_ed25519").touch()
    return other


def test_a_lab_that_another_checkout_runs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: list[str]
) -> None:
    other = _another(tmp_path)
    _containers(monkeypatch, other, gateway="running", device="exited")
    with pytest.raises(LabError, match=f"belongs to {other} "):
        manage.down("lab", home=tmp_path / ".lab")
    assert not removed


def test_what_another_checkout_left_when_the_machine_went_down_is_removed_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: list[str]
) -> None:
    other, said = _another(tmp_path), list[str]()
    _containers(monkeypatch, other, gateway="exited", device="exited")
    client, state = manage.engine.connect(), manage.State("lab", tmp_path / ".lab")
    manage._clear_another_checkouts(client, state, said.append)
    assert removed == ["gateway", "device"] and str(other) in said[0]


def test_a_lab_whose_checkout_is_gone_is_removed_though_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: list[str]
) -> None:
    _containers(monkeypatch, tmp_path / "deleted", gateway="running")
    manage.down("lab", home=tmp_path / ".lab")
    assert "gateway" in removed


def test_one_s_own_lab_is_not_another_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: list[str]) -> None:
    said = list[str]()
    _containers(monkeypatch, tmp_path / ".lab" / "lab", gateway="exited")
    manage._clear_another_checkouts(manage.engine.connect(), manage.State("lab", tmp_path / ".lab"), said.append)
    assert not removed and not said


def test_host_keys_whose_end_was_lost_are_asked_for_again() -> None:
    said = ["", "ssh-rsa AAAA root@one\n", "ssh-rsa AAAA root@one\nssh-ed25519 BBBB root@one\nthat is all\n"]
    lines = manage.pinned("10.0.0.1", (22, 2222), lambda _: said.pop(0))
    assert lines == ["10.0.0.1,[10.0.0.1]:2222 ssh-rsa AAAA", "10.0.0.1,[10.0.0.1]:2222 ssh-ed25519 BBBB"]
    assert not said


def test_a_host_without_keys_is_said_and_nothing_is_pinned() -> None:
    asked: list[list[str]] = []

    def ask(argv: list[str]) -> str:
        asked.append(argv)
        return "cat: /etc/ssh/ssh_host_*_key.pub: No such file or directory\n"

    with pytest.raises(LabError, match=r"10\.0\.0\.1: no host keys .* No such file or directory"):
        manage.pinned("10.0.0.1", (22,), ask)
    assert 1 < len(asked) < 10
