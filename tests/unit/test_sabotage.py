"""What the sabotage suite promises without a lab: sound entries, rounds that can be told apart, and fair judgement."""

from __future__ import annotations

import dataclasses
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.run import Plan, RunError
from gatehouse.proof.results import Check, Verdict
from gatehouse.site import load
from lab.errors import LabError
from lab.sabotage import bench, run
from lab.sabotage.catalogue import OUT_OF_REACH, SABOTAGES
from lab.sabotage.judge import changed, judged
from lab.sabotage.model import Sabotage, expanded, matching
from lab.sabotage.rounds import packed
from lab.sabotage.surroundings import preamble
from roles.base.version import ROOT

LIST_CHECKS = """
import sys, pytest
from gatehouse.proof.plugin import identity
class Lister:
    def pytest_collection_finish(self, session):
        print("", *(f"check {identity(item)}" for item in session.items), sep="\\n")
sys.exit(pytest.main(["tests/compliance", "--site", "lab", "--collect-only", "-q"], plugins=[Lister()]))
"""
SEGMENTS = ("iot", "management", "guest", "internal", "internet")


def said(verdict: Verdict, *identities: str) -> dict[str, Check]:
    reason = None if verdict == "proven" else "seen"
    return {i: Check(i, "title", "gateway", None, verdict, reason=reason) for i in identities}


def broken(name: str, *catches: str, **more: object) -> Sabotage:
    return Sabotage(name, "title", catches, "true", **more)  # type: ignore[arg-type]


# patterns


def test_braces_are_written_out() -> None:
    assert expanded(["a.{x,y}-to-{1,2}", "b", "b"]) == ("a.x-to-1", "a.x-to-2", "a.y-to-1", "a.y-to-2", "b")


def test_a_pattern_meets_its_checks_and_no_others() -> None:
    known = ["segments.iot-to-guest", "segments.iot-to-internal", "scan.tcp-from-iot"]
    assert matching(["segments.iot-*"], known) == set(known[:2])
    assert matching(["segments.iot"], known) == set()


# the catalogue


@pytest.fixture(scope="module")
def identities() -> list[str]:
    """The id of every check that the compliance suite makes of the lab, without making any."""
    listed = subprocess.run([sys.executable, "-c", LIST_CHECKS], cwd=ROOT, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stdout + listed.stderr
    return [line.removeprefix("check ") for line in listed.stdout.splitlines() if line.startswith("check ")]


def test_every_check_of_the_suite_has_a_sabotage_or_a_reason_why_it_has_none(identities: list[str]) -> None:
    assert len(identities) > 100
    covered = matching([pattern for sabotage in SABOTAGES for pattern in sabotage.expected], identities)
    assert set(identities) - covered == set(OUT_OF_REACH)


def test_no_pattern_stands_for_checks_that_are_gone(identities: list[str]) -> None:
    for sabotage in SABOTAGES:
        patterns = (*sabotage.expected, *sabotage.tolerated)
        assert [p for p in patterns if not matching([p], identities)] == [], sabotage.name


def test_names_are_unique_and_say_what_is_meant() -> None:
    names = [sabotage.name for sabotage in SABOTAGES]
    assert len(names) == len(set(names)) >= 50
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.-]+", name) for name in names)
    assert all(sabotage.title and sabotage.catches for sabotage in SABOTAGES)


def test_what_may_fall_with_a_sabotage_has_a_reason_and_is_not_what_must_catch_it() -> None:
    for sabotage in SABOTAGES:
        assert all(sabotage.may.values()), sabotage.name
        assert not set(sabotage.expected) & set(sabotage.tolerated), sabotage.name
    assert all(OUT_OF_REACH.values())


def test_no_sabotage_keeps_apart_from_one_that_does_not_exist() -> None:
    names = [sabotage.name for sabotage in SABOTAGES]
    for sabotage in SABOTAGES:
        assert [p for p in sabotage.apart_from if not matching([p], names)] == [], sabotage.name


def test_every_sabotage_is_shell_that_a_shell_understands() -> None:
    tools = preamble(load("lab", ROOT), "gateway", "lab") + bench.TOOLS.read_text()
    scripts = [text for s in SABOTAGES for text in (s.breaks, s.ends, s.here, s.ends_here)]
    checked = subprocess.run(["sh", "-n"], input="\n".join([tools, *scripts]), text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr


def test_a_sabotage_finds_bridges_and_addresses_of_every_segment() -> None:
    known = preamble(load("lab", ROOT), "gateway", "lab")
    for segment in SEGMENTS:
        assert re.search(rf"^br_{segment}=br-\w+$", known, re.MULTILINE)
        for variable in ("gw4", "gw6", "host4", "host6"):
            assert re.search(rf"^{variable}_{segment}=[0-9a-f.:]+$", known, re.MULTILINE)
    assert re.search(r"^operator4=[0-9.]+$", known, re.MULTILINE)


# rounds


def test_sabotages_that_different_checks_catch_share_a_round() -> None:
    one, other = broken("one", "a.*"), broken("other", "b.x")
    assert packed([one, other], ["a.1", "b.x"]) == [[one, other]]


@pytest.mark.parametrize(
    "other",
    [
        broken("other", "a.1"),
        broken("other", "b.x", may={"a.*": "why"}),
        broken("other", "b.x", apart_from=("on*",)),
    ],
    ids=["caught by the same check", "may fell what catches the other", "kept apart"],
)
def test_sabotages_that_could_be_mistaken_for_each_other_share_none(other: Sabotage) -> None:
    one = broken("one", "a.*")
    assert packed([one, other], ["a.1", "b.x"]) != [[one, other]]
    assert packed([other, one], ["a.1", "b.x"]) != [[other, one]]


def test_sabotages_may_have_the_same_consequences_in_one_round() -> None:
    one, other = broken("one", "a.1", may={"c.*": "why"}), broken("other", "b.x", may={"c.*": "why"})
    assert packed([one, other], ["a.1", "b.x", "c.1"]) == [[one, other]]


def test_rounds_hold_every_sabotage_once_and_only_such_as_can_be_told_apart() -> None:
    known = {i for s in SABOTAGES for p in s.expected for i in [p.replace("*", "x")]}
    rounds = packed(SABOTAGES, known)
    assert sorted(s.name for made in rounds for s in made) == sorted(s.name for s in SABOTAGES)
    for one, other in [pair for made in rounds for pair in itertools.combinations(made, 2)]:
        assert matching(one.expected, known).isdisjoint(matching((*other.expected, *other.tolerated), known))
        assert not matching(one.apart_from, [other.name])
    assert rounds == packed(SABOTAGES, known)


def test_the_rounds_are_few(identities: list[str]) -> None:
    assert len(packed(SABOTAGES, identities)) < len(SABOTAGES) / 12


def test_one_that_keeps_apart_from_one_more_moves_few_others() -> None:
    several = [broken(f"s{n}", f"c.{n % 6}") for n in range(60)]
    known = [f"c.{n}" for n in range(6)]
    before = packed(several, known)
    other = next(s.name for made in before for s in made if "s0" in [each.name for each in made] and s.name != "s0")
    after = packed([dataclasses.replace(s, apart_from=(other,)) if s.name == "s0" else s for s in several], known)
    pairs = [{frozenset((a.name, b.name)) for made in rounds for a, b in itertools.combinations(made, 2)}
             for rounds in (before, after)]  # fmt: skip
    assert frozenset(("s0", other)) not in pairs[1]
    assert len(pairs[1] - pairs[0]) < len(pairs[0]) / 4


def test_nobody_loads_the_firewall_anew_whose_table_was_changed() -> None:
    loads = [n for n, s in enumerate(SABOTAGES) if re.search(r"^\s*(firewall|admit) ", s.breaks, re.MULTILINE)]
    changes = [n for n, s in enumerate(SABOTAGES) if "nft " in s.breaks]
    assert len(loads) > 20 and len(changes) > 5
    assert max(loads) < min(changes)


def test_nobody_starts_the_broker_again_that_would_not_start_or_whose_state_was_to_be_seen(
    identities: list[str],
) -> None:
    order = [sabotage.name for sabotage in SABOTAGES]
    starts = {s.name for s in SABOTAGES if re.search(r"^\s*broker |restart mosquitto", s.breaks, re.MULTILINE)}
    reads = {s.name for s in SABOTAGES if re.search(r"^\s*rights |reload mosquitto", s.breaks, re.MULTILINE)}
    assert len(starts) > 10 and len(reads) > 10
    for made in packed(SABOTAGES, identities):
        for one, other in itertools.combinations([sabotage.name for sabotage in made], 2):
            assert order.index(one) < order.index(other)
            if one.startswith("broken-") or one in ("no-broker", "stranger-connected", "key-of-another"):
                assert other not in starts, (one, other)
            if one in ("no-broker", "stale-revocation-list", "revocation-list-not-read", "key-of-another"):
                assert other not in reads, (one, other)


def test_nobody_waits_for_the_coap_endpoint_to_have_its_broker_where_that_takes_nobody(identities: list[str]) -> None:
    waits = {s.name for s in SABOTAGES if re.search(r"^\s*coap ", s.breaks, re.MULTILINE)}
    alone = {"no-broker", "impostor", "anybody", "names-believed", "key-instead-of-certificate"}
    assert len(waits) > 5
    for made in packed(SABOTAGES, identities):
        names = {sabotage.name for sabotage in made}
        assert not (names & waits and names & alone), names & (waits | alone)


# judgement


def test_a_sabotage_is_caught_when_every_pattern_is_met_by_a_failed_check() -> None:
    sabotage = broken("one", "a.*", "b.x")
    before = said("proven", "a.1", "a.2", "b.x", "c")
    (outcome,) = judged([sabotage], before, {**before, **said("failed", "a.2", "b.x")})
    assert outcome.clean and outcome.failed == {"a.*": ("a.2",), "b.x": ("b.x",)}


@pytest.mark.parametrize("after", [said("failed", "a.1"), said("failed", "a.1") | said("not_proven", "b.x")])
def test_a_sabotage_is_missed_when_a_pattern_is_not_met_by_a_failure(after: dict[str, Check]) -> None:
    before = said("proven", "a.1", "b.x")
    (outcome,) = judged([broken("one", "a.*", "b.x")], before, {**before, **after})
    assert not outcome.caught
    assert "one: not caught by b.x" in list(outcome.problems())


def test_what_falls_and_was_foreseen_is_a_consequence_and_anything_else_an_accident() -> None:
    sabotage = broken("one", "a.1", may={"b.*": "why"})
    before = said("proven", "a.1", "b.x", "c")
    (outcome,) = judged([sabotage], before, {**before, **said("failed", "a.1", "c"), **said("not_proven", "b.x")})
    assert outcome.caught and not outcome.clean
    assert (outcome.consequences, outcome.accidents) == (("b.x",), {"c": "failed: seen"})


def test_a_check_that_was_not_made_any_more_is_an_accident() -> None:
    (outcome,) = judged([broken("one", "a")], said("proven", "a", "b"), said("failed", "a"))
    assert outcome.accidents == {"b": "was not made"}


def test_in_a_shared_round_a_fall_that_the_other_explains_is_no_accident() -> None:
    before = said("proven", "a", "b")
    outcomes = judged([broken("one", "a"), broken("other", "b")], before, said("failed", "a", "b"))
    assert all(outcome.clean for outcome in outcomes)


def test_verdicts_that_stay_are_no_change() -> None:
    before = said("proven", "a") | said("not_proven", "b")
    assert changed(before, dict(before)) == {}
    assert list(changed(before, before | said("proven", "b"))) == ["b"]


# what is made again


def test_a_clean_round_stands() -> None:
    made = [broken("one", "a"), broken("other", "b")]
    found = judged(made, said("proven", "a", "b"), said("failed", "a", "b"))
    assert run.settled(made, found) == (found, [])


def test_what_was_missed_in_a_shared_round_is_made_alone_and_the_rest_stands() -> None:
    made = [broken("one", "a"), broken("other", "b")]
    found = judged(made, said("proven", "a", "b"), said("failed", "a") | said("proven", "b"))
    assert run.settled(made, found) == (found[:1], [made[1:]])


def test_a_round_with_an_accident_is_made_again_in_halves() -> None:
    made = [broken("one", "a"), broken("other", "b"), broken("third", "c")]
    found = judged(made, said("proven", "a", "b", "c", "d"), said("failed", "a", "b", "c", "d"))
    assert run.settled(made, found) == ([], [made[:2], made[2:]])
    assert run.settled(made[:1], found[:1]) == (found[:1], [])


def test_one_that_could_not_be_made_does_not_spoil_the_others() -> None:
    made = [broken("one", "a"), broken("other", "b"), broken("third", "c")]
    found = judged(made, said("proven", "a", "b", "c"), said("failed", "b", "c") | said("proven", "a"))
    found[0] = dataclasses.replace(found[0], unmade="no such file")
    assert run.settled(made, found) == ([], [made[:1], made[1:]])


def test_what_does_not_recur_when_a_round_is_made_again_is_told_and_is_no_false_alarm() -> None:
    made = [broken("one", "a"), broken("other", "b")]
    before = said("proven", "a", "b", "c")
    clear = judged(made, before, said("failed", "a", "b") | said("proven", "c"))
    crashed = judged(made, before, said("failed", "a", "b", "c"))
    passing = run.Passing()
    assert not passing.may_pass(made, clear)
    assert passing.may_pass(made, crashed)
    assert not passing.may_pass(made, clear)
    assert passing.seen == ["c: failed: seen"]


def test_what_recurs_is_judged_and_never_made_a_third_time() -> None:
    made = [broken("one", "a")]
    crashed = judged(made, said("proven", "a", "c"), said("failed", "a", "c"))
    passing = run.Passing()
    assert [passing.may_pass(made, crashed) for _ in range(2)] == [True, False]
    assert passing.seen == []
    assert run.settled(made, crashed) == (crashed, [])


def test_a_sabotage_that_was_missed_is_no_passing_thing() -> None:
    made = [broken("one", "a")]
    assert not run.Passing().may_pass(made, judged(made, said("proven", "a"), said("proven", "a")))


# a machine that was busy


class Busy:
    """Answers in turn with what it is given; an error is raised."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)

    def __call__(self, *_: object, **__: object) -> object:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def bench_of_a_lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> bench.Bench:
    """A gateway on the bench, of which nobody asks more than the suite, the plan and the deploy."""
    registry = tmp_path / "registry"
    registry.write_text("")
    monkeypatch.setattr(bench.vaults, "registry_path", lambda _: registry)
    monkeypatch.setattr(bench.lab, "run", Busy(*[LabError("no Docker Engine answers")] * 9))
    monkeypatch.setattr(bench.firmware, "offer", lambda *_: None)
    monkeypatch.setattr(bench.deploying, "apply", lambda *_, **__: None)
    monkeypatch.setattr(bench.deploying, "plan", lambda _: Plan({}))
    monkeypatch.setattr(bench.Bench, "_shell_here", lambda *_: "")
    return bench.Bench(load("lab", ROOT), lambda _: None)


def test_what_did_not_reach_its_end_once_is_asked_once_more_and_told(
    bench_of_a_lab: bench.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    well = said("proven", "a", "b")
    suite = Busy(bench.SabotageError("lab: no end"), said("proven", "a") | said("failed", "b"), well)
    monkeypatch.setattr(bench.Bench, "checks", suite)
    monkeypatch.setattr(bench.deploying, "plan", Busy(RunError("lab: no plan"), Plan({})))
    assert bench_of_a_lab.baseline() == well
    assert bench_of_a_lab.passing == [
        "plan: lab: no plan",
        "suite: lab: no end",
        "baseline: lab: b fails before anything is broken: seen (`invoke verify` says more)",
    ]


@pytest.mark.parametrize(
    ("patched", "answers", "error"),
    [
        ("checks", [bench.SabotageError("lab: no end")] * 4, "lab: no end"),
        ("checks", [said("failed", "b")] * 2, "b fails before anything is broken: seen"),
    ],
)
def test_what_does_not_reach_its_end_twice_ends_the_run(
    bench_of_a_lab: bench.Bench, monkeypatch: pytest.MonkeyPatch, patched: str, answers: list[object], error: str
) -> None:
    monkeypatch.setattr(bench.Bench, patched, Busy(*answers))
    with pytest.raises(bench.SabotageError, match=error):
        bench_of_a_lab.baseline()


def test_a_gateway_that_is_not_as_declared_is_asked_nothing_more(
    bench_of_a_lab: bench.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.deploying, "plan", Busy(Plan({"gateway": ("Broker | Run the broker",)})))
    with pytest.raises(bench.SabotageError, match="not as declared, so nothing was broken"):
        bench_of_a_lab.baseline()


def test_a_repair_that_did_not_reach_its_end_goes_on_from_there(
    bench_of_a_lab: bench.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.Bench, "checks", Busy(said("failed", "a")))
    monkeypatch.setattr(bench.Bench, "_break", lambda bench, sabotage: bench._broken.append(sabotage) or "")
    monkeypatch.setattr(bench.deploying, "apply", Busy(RunError("lab: the deploy did not get to its end"), None))
    (outcome,) = bench_of_a_lab.round([broken("one", "a")], said("proven", "a"), "1")
    assert outcome.clean
    assert not bench_of_a_lab.is_broken
    assert bench_of_a_lab.passing == ["repair: lab: the deploy did not get to its end"]


def test_a_repair_that_fails_twice_ends_the_run_and_the_gateway_still_counts_as_broken(
    bench_of_a_lab: bench.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.Bench, "checks", Busy(said("failed", "a")))
    monkeypatch.setattr(bench.Bench, "_break", lambda bench, sabotage: bench._broken.append(sabotage) or "")
    monkeypatch.setattr(bench.deploying, "apply", Busy(*[RunError("lab: the deploy did not get to its end")] * 2))
    with pytest.raises(RunError):
        bench_of_a_lab.round([broken("one", "a")], said("proven", "a"), "1")
    assert bench_of_a_lab.is_broken


def test_a_host_that_cannot_be_asked_makes_a_sabotage_unmade(bench_of_a_lab: bench.Bench) -> None:
    assert bench_of_a_lab._shell("true") == "no Docker Engine answers"


def test_what_is_otherwise_in_the_end_is_asked_once_more(
    bench_of_a_lab: bench.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, left = said("proven", "a", "b"), said("proven", "a") | said("failed", "b")
    monkeypatch.setattr(bench.Bench, "checks", Busy(said("failed", "a", "b"), left))
    assert bench_of_a_lab.ending(before) == left
    assert bench_of_a_lab.passing == ["in the end: a: failed: seen"]
    monkeypatch.setattr(bench.Bench, "checks", Busy(before))
    assert bench_of_a_lab.ending(before) == before


# what is refused


def test_a_site_that_is_no_lab_is_refused_and_nothing_is_said_to_it() -> None:
    site = load("lab", ROOT).model_copy(update={"lab": False, "name": "prod"})
    with pytest.raises(bench.SabotageError, match="prod: is no lab: nothing was broken"):
        run.sabotage(site, say=lambda line: pytest.fail(line))


def test_a_name_that_is_none_is_refused_with_those_there_are() -> None:
    with pytest.raises(bench.SabotageError, match="there is no 'open-sesame'.*plain-mqtt"):
        run.chosen(["plain-mqtt", "open-sesame"])
    assert [sabotage.name for sabotage in run.chosen(["plain-mqtt"])] == ["plain-mqtt"]
