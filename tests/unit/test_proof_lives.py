"""What ends one day, and what an operator does about a check that failed."""

from __future__ import annotations

import ast
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from markupsafe import escape

from gatehouse.identity import ages
from gatehouse.proof import lives, mends, page, results
from gatehouse.proof.results import Check, Run
from tests.unit.enrolling import House, a_house

COMPLIANCE = Path(__file__).resolve().parents[1] / "compliance"


def checks_of_the_suite():
    """The ids as the suite's markers have them, with a word for what is filled in."""
    for path in sorted(COMPLIANCE.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.check":
                yield re.sub(r"\{\w+\}", "word", node.args[0].value)


def test_whatever_fails_the_report_says_what_to_do():
    found = list(checks_of_the_suite())
    assert len(found) > 80
    told = {name: mends.mend(name, "home") for name in found}
    assert all("{" not in text for text in told.values())
    assert sum(text == mends.mend("unheard.of", "home") for text in told.values()) < len(found) / 4


def test_a_mend_names_the_site_and_the_more_special_comes_first():
    assert "--site home" in mends.mend("ssh.algorithms", "home")
    assert mends.mend("ssh.refuses-default", "home") != mends.mend("ssh.algorithms", "home")
    assert "./kit harden --site home" in mends.mend("unheard.of", "home")


def failed(**more):
    return Check("ssh.algorithms", "A title", "gw", None, "failed", reason="it offers old ones", **more)


def test_the_mend_stands_with_the_failure_on_the_page_and_in_the_terminal_and_not_where_it_is_waived():
    waiver = {"reason": "r", "owner": "Ada", "expires": "2999-01-01", "compensated_by": "b.c"}
    told, waived = Run("home", "1", checks=[failed()]), Run("home", "1", checks=[failed(waiver=waiver)])
    words = mends.mend("ssh.algorithms", "home")
    assert escape(words) in page.render(told, None) and f"mend: {words}" in results.table(told)
    assert escape(words) not in page.render(waived, None) and words not in results.table(waived)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    made = a_house(tmp_path_factory.mktemp("house"))
    made.enrol("pump-1")
    return made


def ending(house: House, days: int) -> list[lives.Life]:
    vault, devices = house.vault(), house.devices().values()
    now = datetime.now(UTC) + timedelta(days=days)
    return lives.lives("home", house.pki(vault), ages.ages(house.site, vault), devices, now)


def test_authorities_lists_and_devices_are_there_with_the_days_that_they_have_left(house: House):
    found = ending(house, 0)
    assert {"authority", "device's certificate"} <= {life.kind for life in found}
    assert [life.days_left for life in found] == sorted(life.days_left for life in found)
    (pump,) = (life for life in found if life.name == "pump-1")
    assert pump.state == "fine" and 300 < pump.days_left < 366


def test_what_has_little_left_is_to_be_replaced_and_what_has_nothing_left_is_over(house: House):
    states = {days: next(e.state for e in ending(house, days) if e.name == "pump-1") for days in (0, 300, 400)}
    assert states == {0: "fine", 300: "soon", 400: "over"}


def test_what_ends_is_in_the_results_and_on_the_page_the_soonest_first(tmp_path: Path):
    rows = [
        lives.Life(
            "device's certificate", "pump-1", "2026-03-01T00:00:00+00:00", -2, "over", "./kit renew --site home"
        ),
        lives.Life("secret", "grafana.admin", "2026-05-01T00:00:00+00:00", 59, "fine", "./kit rotate"),
    ]
    run = Run("home", "1", checks=[failed()], lives=rows)
    folder = results.new_folder(tmp_path, run)
    assert results.read(results.write(folder, run)).lives == rows
    text = page.render(run, None)
    assert text.index("pump-1") < text.index("grafana.admin") and "over" in text and "./kit renew" in text


def test_of_very_many_the_page_has_the_soonest_and_says_how_many_more():
    rows = [lives.Life("secret", f"s{n:03}", "2026-05-01", n, "fine", "m") for n in range(lives.SHOWN + 7)]
    text = page.render(Run("home", "1", checks=[failed()], lives=rows), None)
    assert "s059" in text and "s060" not in text and "7 more end later" in text


def test_without_a_vault_the_page_says_that_it_is_not_known():
    assert "the vault was not opened" in page.render(Run("home", "1", checks=[failed()]), None)


def history(*verdicts):
    made = []
    for number, verdict in enumerate(verdicts):
        reason = None if verdict == "proven" else "r"
        check = Check("a.b", "T", "gw", None, verdict, reason=reason)
        steady = Check("a.steady", "T", "gw", None, "proven")
        made.append(Run("home", "1", started=datetime(2026, 1, 1 + number, tzinfo=UTC), checks=[check, steady]))
    return made[::-1]


def test_the_trend_has_a_bar_a_run_and_what_failed_is_seen_in_it():
    bars = page.bars(history("proven", "failed", "proven"))
    assert [[part["verdict"] for part in bar["parts"]] for bar in bars] == [
        ["proven"],
        ["proven", "failed"],
        ["proven"],
    ]
    assert all(part["height"] >= 2 for bar in bars for part in bar["parts"])
    newest, *earlier = history("proven", "failed", "proven")
    assert page.render(newest, earlier[0], earlier).count("<rect") == 4


def test_a_check_that_did_not_always_stand_as_now_is_told_with_its_past():
    (one,) = page.unsteady(history("proven", "failed", "proven"))
    assert (one[0].id, one[1]) == ("a.b", ["proven", "failed", "proven"])
    assert page.unsteady(history("proven", "proven")) == []
