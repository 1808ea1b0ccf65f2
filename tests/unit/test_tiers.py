"""`./kit test`: each tier is run, and what failed in any of them is named once more at the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from invoke import Context

from commands import common, testing
from deploy import tools


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, list[str]]:
    """The tests that shall fail, by tier's folder; what is run is added under its folder."""
    fails: dict[str, list[str]] = {}
    remembered = tmp_path / ".pytest_cache/v/cache/lastfailed"

    def pytest_run(where: str, *_: str) -> int:
        names = fails.setdefault(where, [])
        remembered.parent.mkdir(parents=True, exist_ok=True)
        before = json.loads(remembered.read_text()) if remembered.exists() else {}
        remembered.write_text(json.dumps(before | dict.fromkeys(names, True)))
        return 1 if names else 0

    monkeypatch.setattr(common, "pytest", pytest_run)
    monkeypatch.setattr(tools, "ensure", lambda _: None)
    monkeypatch.setattr(testing, "ROOT", tmp_path)
    monkeypatch.setattr(testing.subprocess, "run", lambda *_, **__: type("Done", (), {"returncode": 0}))
    return fails


def test_every_tier_is_run_but_those_on_request(runs: dict[str, list[str]]) -> None:
    testing.test.body(Context())
    assert set(runs) == {options[0] for tier, options in testing.TIERS.items() if tier not in testing.ON_REQUEST}


def test_what_failed_is_named_once_more_at_the_end(
    runs: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    runs["tests/unit"] = ["tests/unit/test_one.py::test_a[x y]"]
    runs["tests/roles"] = ["tests/roles/test_two.py::test_b"]
    with pytest.raises(SystemExit, match="test: failed: unit, roles"):
        testing.test.body(Context())
    named = [line for line in capsys.readouterr().out.splitlines() if line.startswith("test: failed: ")]
    assert named == [
        "test: failed: tests/unit/test_one.py::test_a[x y]",
        "test: failed: tests/roles/test_two.py::test_b",
    ]


def test_an_unknown_tier_is_refused_with_those_that_there_are(runs: dict[str, list[str]]) -> None:
    with pytest.raises(SystemExit, match=r"no tier 'units' \(use style, unit, roles"):
        testing.test.body(Context(), tier="units")
    assert runs == {}
