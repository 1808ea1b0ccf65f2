"""Signed reports: what was changed, added, taken away or moved since is found, and said by its name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from invoke import Context

from commands import common, proof, report
from deploy import inventory, reportseals, vaults
from gatehouse.errors import GatehouseError
from gatehouse.proof import results, seal
from gatehouse.proof.results import Check, Run
from gatehouse.proof.seal import SealError
from tests.unit.enrolling import House, a_house

BEGIN = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = Ed25519PrivateKey.generate()
OTHER = Ed25519PrivateKey.generate()


def a_run(reports: Path, number: int, site: str = "home") -> Path:
    run = Run(site, "1", started=BEGIN + timedelta(days=number), finished=BEGIN + timedelta(days=number, minutes=1))
    run.add(Check("a.b", "A title", "gw", "iot", "proven"))
    folder = results.new_folder(reports, run)
    results.write(folder, run)
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Three runs, signed as they were made."""
    for number in range(3):
        a_run(tmp_path, number)
        assert len(seal.seal(tmp_path / "home", "home", KEY)) == 1
    return tmp_path / "home"


def problems(base: Path, key: Ed25519PrivateKey = KEY, head: str = "") -> tuple[str, ...]:
    return seal.verify(base, "home", key.public_key(), head).problems


def runs(base: Path) -> list[Path]:
    return sorted(path for path in base.iterdir() if path.is_dir() and not path.is_symlink())


def lines(base: Path) -> list[bytes]:
    return (base / seal.CHAIN).read_bytes().splitlines(keepends=True)


def put(base: Path, *parts: bytes) -> None:
    (base / seal.CHAIN).write_bytes(b"".join(parts))


def test_signed_reports_that_nobody_touched_are_unchanged_and_each_is_bound_to_the_one_before(base: Path) -> None:
    found = seal.verify(base, "home", KEY.public_key())
    assert (found.problems, found.present, found.forgotten) == ((), 3, 0)
    links = [json.loads(line) for line in lines(base)]
    assert [link["run"] for link in links] == [run.name for run in runs(base)]
    assert [link["number"] for link in links] == [1, 2, 3]
    assert links[0]["previous"] == "" and len({link["previous"] for link in links}) == 3
    assert not problems(base, head=found.head)
    assert seal.seal(base, "home", KEY) == []


@pytest.mark.parametrize("which", [0, 2])
@pytest.mark.parametrize("name", [results.RESULTS, results.JUNIT])
@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (lambda path: path.write_text(path.read_text().replace("A title", "B title")), "was changed after"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "was changed after"),
        (lambda path: path.write_bytes(b""), "was changed after"),
        (lambda path: path.unlink(), "is gone"),
        (lambda path: (path.rename(path.with_name("x")), path.symlink_to("x")), "is no file of a report"),
    ],
)
def test_a_file_that_was_tampered_with_is_named(
    base: Path, which: int, name: str, tamper: Callable[[Path], object], said: str
) -> None:
    path = runs(base)[which] / name
    tamper(path)
    found = problems(base)
    assert any(str(path) in problem and said in problem for problem in found), found
    assert all(str(path.parent) in problem for problem in found), "the other runs are as they were"


def test_what_was_added_or_taken_away_is_named(base: Path) -> None:
    (runs(base)[1] / "report.html").write_text("all is well")
    assert problems(base) == (f"{runs(base)[1] / 'report.html'}: was added after the run was signed",)
    (runs(base)[1] / "report.html").unlink()
    gone = runs(base)[1]
    shutil.rmtree(gone)
    assert [problem.partition(" (")[0] for problem in problems(base)] == [f"{gone}: is gone"]


def test_a_run_that_is_not_signed_is_named_until_it_is(base: Path) -> None:
    new = a_run(base.parent, 3)
    assert problems(base) == (f"{new}: is not signed (./kit report.sign --site home)",)
    seal.seal(base, "home", KEY)
    assert not problems(base)


def test_of_a_run_that_broke_off_nothing_is_signed_and_one_that_just_began_is_no_finding(base: Path) -> None:
    broken = base / "2026-03-09T120000Z"
    broken.mkdir()
    assert not problems(base)
    (broken / results.JUNIT).write_text("<x/>")
    assert seal.seal(base, "home", KEY) == []
    assert problems(base) == (f"{broken}: is no whole run, and not signed (take it away)",)


def test_an_old_success_is_not_shown_for_the_last_run(base: Path) -> None:
    latest = base / results.LATEST
    good = latest.readlink()
    elsewhere = base / "zz"
    shutil.copytree(runs(base)[0], elsewhere)
    for leads in (runs(base)[0].name, "zz", "nowhere"):
        latest.unlink()
        latest.symlink_to(leads)
        assert [p for p in problems(base) if str(latest) in p], leads
    latest.unlink()
    assert [p for p in problems(base) if "'nothing'" in p]
    latest.symlink_to(good)
    assert not problems(base)


@pytest.mark.parametrize(
    ("change", "number"),
    [
        (lambda all_: all_[1:], 1),
        (lambda all_: [all_[0], all_[2]], 2),
        (lambda all_: [all_[1], all_[0], all_[2]], 1),
        (lambda all_: [all_[0], all_[0], *all_[1:]], 2),
        (lambda all_: [all_[0].replace(b'"number":1', b'"number":7'), *all_[1:]], 1),
        (lambda all_: [*all_[:2], all_[2].replace(b"2026-03-03", b"2026-03-04")], 3),
        (lambda all_: [*all_[:2], all_[2][:40]], 3),
        (lambda all_: [all_[0], b"\n", *all_[1:]], 2),
        (lambda all_: [all_[0], b"\xff\xfe\n", *all_[1:]], 2),
        (lambda all_: [all_[0], b"[" * 100_000 + b"\n"], 2),
        (lambda all_: [all_[0], b'{"number": 2}\n'], 2),
        (lambda all_: [all_[0], b"null\n"], 2),
        (lambda all_: [all_[0], all_[1].replace(b'"number":2', b'"number": 2')], 2),
    ],
)
def test_a_chain_that_was_changed_is_found_where_it_was_and_nothing_is_signed_on_top(
    base: Path, change: Callable[[list[bytes]], list[bytes]], number: int
) -> None:
    put(base, *change(lines(base)))
    a_run(base.parent, 4)
    found = problems(base)
    assert len(found) == 1 and found[0].startswith(f"{base / seal.CHAIN}:{number}: "), found
    before = lines(base)
    with pytest.raises(SealError, match="nothing was signed"):
        seal.seal(base, "home", KEY)
    assert lines(base) == before


def test_a_last_line_without_its_end_or_an_empty_chain_is_found(base: Path) -> None:
    whole = lines(base)
    put(base, *whole[:2], whole[2].rstrip(b"\n"))
    assert problems(base) == (f"{base / seal.CHAIN}: its last line is cut off",)
    put(base, b"")
    assert problems(base) == (f"{base / seal.CHAIN}: is empty",)
    put(base, *whole)
    assert not problems(base)


def test_last_runs_that_were_taken_away_with_their_lines_are_found_by_who_noted_the_digest(base: Path) -> None:
    head = seal.verify(base, "home", KEY.public_key()).head
    shutil.rmtree(runs(base)[2])
    put(base, *lines(base)[:2])
    (base / results.LATEST).unlink()
    (base / results.LATEST).symlink_to(runs(base)[1].name)
    assert not problems(base), "the chain alone can't show it"
    assert len(problems(base, head=head)) == 1 and head in problems(base, head=head)[0]


def test_another_sites_key_signs_nothing_here(base: Path) -> None:
    assert "not signed by this site's key" in problems(base, OTHER)[0]
    with pytest.raises(SealError, match="not signed by this site's key"):
        seal.seal(base, "home", OTHER)
    assert not problems(base)


def test_a_run_or_a_chain_of_another_site_is_refused_and_nothing_is_written(base: Path, tmp_path: Path) -> None:
    a_run(tmp_path, 0, "work")
    shutil.copytree(tmp_path / "work", tmp_path / "mine" / "home", symlinks=True)
    with pytest.raises(SealError, match="is of site 'work', not 'home'"):
        seal.seal(tmp_path / "mine" / "home", "home", KEY)
    assert not (tmp_path / "mine" / "home" / seal.CHAIN).exists()
    assert "is of site 'home'" in seal.verify(base, "work", KEY.public_key()).problems[0]


def test_results_that_cannot_be_read_are_not_signed_and_neither_is_what_is_no_file(base: Path) -> None:
    before = lines(base)
    new = a_run(base.parent, 4)
    (new / "more").mkdir()
    with pytest.raises(SealError, match="more: is no file of a report"):
        seal.seal(base, "home", KEY)
    (new / "more").rmdir()
    (new / results.RESULTS).write_text("{")
    with pytest.raises(GatehouseError, match=results.RESULTS):
        seal.seal(base, "home", KEY)
    assert lines(base) == before


def test_runs_that_are_too_old_to_be_kept_are_not_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "KEPT", 2)
    for number in range(4):
        a_run(tmp_path, number)
        seal.seal(tmp_path / "home", "home", KEY)
    found = seal.verify(tmp_path / "home", "home", KEY.public_key())
    assert (found.problems, found.present, found.forgotten) == ((), 2, 2)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    made = a_house(tmp_path)
    monkeypatch.setattr(vaults, "open_vault", lambda _: made.vault())
    monkeypatch.setattr(inventory, "ROOT", tmp_path)
    monkeypatch.setattr(common, "site", lambda _: made.site)
    return made


def ended(**options: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        report.verify(Context(), site="home", **options)
    return 1 if isinstance(exit_.value.code, str) else int(exit_.value.code or 0)


def test_the_commands_sign_and_verify_and_say_what_was_changed(house: House, capsys) -> None:
    folder = a_run(house.root / "reports", 0)
    report.sign(Context(), site="home")
    said = capsys.readouterr().out
    head = said.rsplit(maxsplit=1)[-1]
    assert folder.name in said and len(head) == 64
    report.sign(Context(), site="home")
    assert "nothing to sign" in capsys.readouterr().out
    report.key(Context(), site="home")
    public = house.root / "report.pem"
    public.write_text(capsys.readouterr().out)
    assert "PRIVATE" not in public.read_text()
    assert ended() == ended(key=str(public)) == ended(head=head) == 0
    assert f"home: unchanged: signed runs here: 1; the chain ends with {head}" in capsys.readouterr().out
    assert ended(head="0" * 64) == 1
    (folder / results.JUNIT).write_text("")
    capsys.readouterr()
    assert ended(key=str(public)) == 1
    printed = capsys.readouterr()
    assert printed.err == f"{folder / results.JUNIT}: was changed after the run was signed\n"
    assert "FAILED" in printed.out


def test_where_nothing_is_there_to_sign_or_verify_it_is_said_and_no_key_is_made(house: House) -> None:
    with pytest.raises(SystemExit, match="no reports"):
        report.sign(Context(), site="home")
    for command in (report.verify, report.key):
        with pytest.raises(SystemExit, match="none was signed yet"):
            command(Context(), site="home")
    assert reportseals.KEY not in house.vault()


@pytest.fixture
def verified(house: House, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """`verify`, of which the suite is played: it leaves a run and exits with 1."""
    numbers = iter(range(9))

    def suite(*_: str) -> int:
        a_run(house.root / "reports", next(numbers))
        return 1

    monkeypatch.setattr(common, "pytest", suite)
    return lambda: proof.prove(house.site)


def test_a_run_is_signed_when_it_ends_where_the_site_has_a_key_and_keeps_its_status(house: House, verified) -> None:
    base = house.root / "reports" / "home"
    assert verified() == 1 and not (base / seal.CHAIN).exists()
    reportseals.prepare(house.site)
    reportseals.prepare(house.site)
    assert verified() == 1 and verified() == 1
    links = [json.loads(line) for line in lines(base)]
    assert [link["number"] for link in links] == [1, 2, 3]
    assert ended() == 0


def test_a_run_whose_chain_was_changed_is_not_signed_and_that_is_no_success(house: House, verified) -> None:
    base = house.root / "reports" / "home"
    reportseals.prepare(house.site)
    verified()
    put(base, lines(base)[0].replace(b"home", b"hame"))
    with pytest.raises(SealError, match="nothing was signed"):
        verified()


def test_a_new_lab_begins_a_new_chain_and_keeps_the_former_one(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = house.root / "reports" / "home"
    reportseals.prepare(house.site)
    a_run(house.root / "reports", 0)
    list(reportseals.sign(house.site))
    monkeypatch.setattr(vaults, "vault_path", lambda _: tmp_path / "new" / "vault.age")
    monkeypatch.setattr(vaults, "identity_path", lambda _: tmp_path / "new" / "identity.age")
    monkeypatch.setattr(vaults, "reports", lambda _: house.root / "reports")
    (tmp_path / "new").mkdir()
    vaults.prepare_lab(house.site)
    assert not (base / seal.CHAIN).exists() and (base / f"former-{seal.CHAIN}").exists()


@pytest.mark.parametrize(
    "content", [None, b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", b"\xff"]
)
def test_a_key_that_is_none_is_refused_in_one_line(house: House, content: bytes | None) -> None:
    a_run(house.root / "reports", 0)
    report.sign(Context(), site="home")
    path = house.root / "key.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SealError, match=r"key\.pem: .*report\.key") as refused:
        reportseals.verify(house.site, str(path))
    assert "\n" not in str(refused.value)
