"""A run of mutants without a lab: each asked by who can tell it, judged fairly, and the declared ruleset is back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from gatehouse.site import load
from lab.sabotage import mutation, mutation_report
from lab.sabotage.bench import SabotageError
from lab.sabotage.mutants import Mutant, mutants
from lab.sabotage.mutation import Mutation, Outcome, Run, chosen
from lab.sabotage.mutation_bench import Lines
from lab.sabotage.mutation_plan import Planner, by_hand, spread
from lab.sabotage.mutation_report import Report, Review, reviews
from lab.sabotage.packets import passes
from lab.sabotage.rules import Ruleset
from roles.base.version import ROOT
from tests.unit.firewall import LED, listing, named, names


@pytest.fixture
def ruleset() -> Ruleset:
    return Ruleset.read(listing())


# who is asked, and with whom

FIRST: dict[str, Any] = {
    "verdicts": {"a": ["proven", ""]},
    "bridges": {"iot": "br-iot", "guest": "br-guest", "internet": "br-net"},
    "addresses": {"br-iot": ["10.0.1.1"], "br-guest": ["10.0.3.1"], "br-net": ["192.0.2.2"]},
    "prefixes": {"br-iot": ["10.0.1.0/24"], "br-guest": ["10.0.3.0/24"], "br-net": ["192.0.2.0/24"]},
    "uplink": "br-net",
    "places": {
        "iot": {"bridge": "br-iot", "addresses": ["10.0.1.9"]},
        "guest": {"bridge": "br-guest", "addresses": ["10.0.3.9"]},
        "listed": {"bridge": "br-iot", "addresses": ["10.0.1.7"], "hardware": "02:00:00:00:00:01"},
        "gateway": {"bridge": "", "addresses": []},
    },
    "questions": [
        ("", "iot", {"id": "dns@10.0.1.1", "kind": "tcp", "address": "10.0.1.1", "port": 53}),
        ("", "iot", {"id": "dns@10.0.3.1", "kind": "tcp", "address": "10.0.3.1", "port": 53}),
        ("", "iot", {"id": "ssh@10.0.1.1", "kind": "tcp", "address": "10.0.1.1", "port": 22}),
        ("", "guest", {"id": "dns@10.0.3.1", "kind": "tcp", "address": "10.0.3.1", "port": 53}),
        ("", "guest", {"id": "ssh@10.0.3.1", "kind": "tcp", "address": "10.0.3.1", "port": 22}),
        ("", "guest", {"id": "out", "kind": "tcp", "address": "192.0.2.80", "port": 443}),
        ("", "guest", {"id": "forged", "kind": "spoof", "address": "192.0.2.80", "port": 53, "source": "10.0.9.9"}),
        ("", "gateway", {"id": "out", "kind": "tcp", "address": "192.0.2.80", "port": 443}),
        ("egress", "listed", {"kind": "tcp", "address": "192.0.2.80", "port": 443}),
        ("egress", "iot", {"kind": "tcp", "address": "192.0.2.80", "port": 443}),
        ("", "nobody's", {"id": "x", "kind": "tcp", "address": "192.0.2.80", "port": 443}),
    ],
}


@pytest.fixture
def planner(ruleset: Ruleset) -> Planner:
    return Planner(ruleset, FIRST)


def test_a_mutant_is_asked_by_the_probes_whose_way_it_changes(planner: Planner, ruleset: Ruleset) -> None:
    planned = planner.planned(
        named(ruleset, 'input: iifname "br-guest" ip daddr 10.0.3.1 tcp dport 53 accept / removed')
    )
    assert planner.keys(planned.probes) == [("guest", "dns@10.0.3.1")]
    everybody = planner.planned(named(ruleset, "input: ct state established,related accept / without ct state"))
    assert len(everybody.probes) == 3, "what is refused otherwise, and no answer to the gateway's own"


def test_a_mutant_of_a_list_is_asked_by_the_area_that_asks_for_lists(planner: Planner, ruleset: Ruleset) -> None:
    planned = planner.planned(
        named(ruleset, 'forward: iifname "br-iot" oifname "br-net" ether saddr vmap @own / removed')
    )
    assert (planned.probes, planned.areas) == ((), {"egress"})


def test_what_a_mutant_of_the_answer_s_way_changes_is_seen(planner: Planner, ruleset: Ruleset) -> None:
    planned = planner.planned(named(ruleset, "forward: ct state established,related accept / removed"))
    assert planner.keys(planned.probes) == [("guest", "out")]


def test_limits_are_asked_by_who_wants_too_much(planner: Planner, ruleset: Ruleset) -> None:
    (over,) = [m for m in mutants(ruleset) if "limit rate over" in m.name]
    assert planner.planned(over).areas == {"floods"}


def test_senders_are_asked_for_wherever_they_are_looked_at() -> None:
    ruleset = Ruleset.read(listing(LED))
    found = {m.name: by_hand(m, ruleset) for m in mutants(ruleset)}
    senders = [areas for name, areas in found.items() if name.startswith(("spoofing: ", "senders: "))]
    assert len(senders) == 4 and all(areas == {"forged"} for areas in senders)
    assert found["set from_guest / widened"] == {"forged"}
    assert found["input: drop / removed"] == set()


def test_mutants_share_a_round_where_none_changes_what_another_is_asked_by(planner: Planner, ruleset: Ruleset) -> None:
    planned = [p for m in mutants(ruleset) if (p := planner.planned(m)).probes]
    rounds = planner.by_probes(planned)
    assert sorted(p.mutant.name for made in rounds for p in made) == sorted(p.mutant.name for p in planned)
    assert len(rounds) < len(planned)
    for made in rounds:
        together = planner.together(p.mutant for p in made)
        assert len({p.mutant.touches for p in made}) == len(made)
        for p in made:
            alone = p.mutant.mutated(ruleset)
            for n in p.sample:
                question = planner.questions[n]
                assert passes(together, question) == passes(alone, question) != passes(ruleset, question)


def test_what_only_several_together_would_change_is_not_made_together(planner: Planner, ruleset: Ruleset) -> None:
    left = [named(ruleset, name) for name in ("input: drop / removed", "chain input / policy accept")]
    assert all(not planner.planned(mutant).differs for mutant in left)
    assert planner.unnoticed(left) == [[left[0]], [left[1]]]
    log = named(ruleset, 'input: iifname "br-iot" log prefix "iot in: " level info / removed')
    assert planner.unnoticed([left[0], log]) == [[left[0], log]]


def test_a_sample_is_from_all_of_them() -> None:
    assert spread([1, 2, 3], 12) == (1, 2, 3)
    assert spread(range(100), 4) == (0, 33, 66, 99)


# a run


class Gateway:
    """A gateway and a suite that behave as the ruleset says; `blind` are probes of which no check judges anything."""

    def __init__(self, planner: Planner, all_mutants: list[Mutant], blind: Iterable[str] = ()) -> None:
        self.planner, self.by_command = planner, {m.command(planner.ruleset): m for m in all_mutants}
        self.loaded: list[Mutant] = []
        self.blind = set(blind)
        self.unseen: set[str] = set()
        self.refused: set[str] = set()
        self.log: list[str] = []

    def listing(self) -> str:
        return listing()

    def apply(self, commands: Iterable[str]) -> str:
        self.loaded = [self.by_command[command] for command in commands]
        self.log.append(" + ".join(m.name for m in self.loaded))
        return "Error: no" if any(m.name in self.refused for m in self.loaded) else ""

    def restore(self) -> None:
        self.loaded = []

    def is_as_loaded(self) -> bool:
        return not [m for m in self.loaded if m.name not in self.unseen]

    def _failing(self, areas: bool) -> dict[tuple[str, str], str]:
        together = self.planner.together(self.loaded)
        return {
            (q.position, q.identity): f"check-of-{q.position}-{q.identity}"
            for n, q in enumerate(self.planner.questions)
            if bool(q.areas) == areas and passes(together, q) != self.planner.base[n] and q.identity not in self.blind
        }

    def groups(self, wanted: Mapping[str, Iterable[tuple[str, str]] | None]) -> dict[str, dict[str, str]]:
        failing = self._failing(False)
        return {
            name: {check: "why" for key, check in failing.items() if keys is None or key in list(keys)}
            for name, keys in wanted.items()
        }

    def areas(self, wanted: Iterable[str]) -> dict[str, dict[str, str]]:
        failing = dict.fromkeys(self._failing(True).values(), "why")
        return {area: failing if area == "egress" else {} for area in wanted}


def ran(planner: Planner, ruleset: Ruleset, gateway: Gateway | None = None) -> dict[str, Outcome]:
    wanted = mutants(ruleset)
    gateway = gateway or Gateway(planner, wanted)
    return {o.name: o for o in Run(planner, gateway, gateway, lambda _: None).made(wanted)}


def test_each_mutant_is_told_by_its_own_checks(planner: Planner, ruleset: Ruleset) -> None:
    found = ran(planner, ruleset)
    assert list(found) == names(ruleset)
    one = found['input: iifname "br-guest" ip daddr 10.0.3.1 tcp dport 53 accept / removed']
    assert (list(one.checks), one.compared) == (["check-of-guest-dns@10.0.3.1"], True)
    of_list = found['forward: iifname "br-iot" oifname "br-net" ether saddr vmap @own / removed']
    assert list(of_list.checks) == ["check-of-listed-tcp:443@192.0.2.80"]
    last = found["input: drop / removed"]
    assert (last.checks, last.compared, last.expected) == ({}, True, False)


def test_what_is_missed_together_is_asked_alone_and_then_said_to_be_missed(planner: Planner, ruleset: Ruleset) -> None:
    name = 'input: iifname "br-guest" ip daddr 10.0.3.1 tcp dport 53 accept / removed'
    gateway = Gateway(planner, mutants(ruleset), blind=["dns@10.0.3.1"])
    found = ran(planner, ruleset, gateway)
    assert not found[name].checks and found[name].expected
    # alone: compared, and asked again
    assert gateway.log.count(name) >= 2


def test_what_nft_does_not_take_is_said_and_does_not_stop_the_others(planner: Planner, ruleset: Ruleset) -> None:
    gateway = Gateway(planner, mutants(ruleset))
    gateway.refused = {"let_in: accept / removed"}
    found = ran(planner, ruleset, gateway)
    assert found["let_in: accept / removed"].unmade == "Error: no"
    assert sum(bool(o.checks) for o in found.values()) > 10


def test_what_the_comparison_does_not_see_is_said(planner: Planner, ruleset: Ruleset) -> None:
    gateway = Gateway(planner, mutants(ruleset))
    gateway.unseen = {"input: drop / removed"}
    assert not ran(planner, ruleset, gateway)["input: drop / removed"].compared


def test_an_interrupt_leaves_the_declared_ruleset(planner: Planner, ruleset: Ruleset) -> None:
    gateway = Gateway(planner, mutants(ruleset))

    def interrupted(_: object) -> dict[str, dict[str, str]]:
        assert gateway.loaded
        raise KeyboardInterrupt

    gateway.groups = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        ran(planner, ruleset, gateway)
    assert not gateway.loaded


def test_a_ruleset_that_is_not_the_loaded_one_is_not_mutated(planner: Planner, ruleset: Ruleset) -> None:
    gateway = Gateway(planner, mutants(ruleset))
    gateway.loaded = [mutants(ruleset)[0]]
    with pytest.raises(SabotageError, match="not the one that was loaded"):
        ran(planner, ruleset, gateway)
    assert gateway.log == []


def test_something_that_nobody_expected_is_traced_to_its_mutant(planner: Planner, ruleset: Ruleset) -> None:
    gateway = Gateway(planner, mutants(ruleset))
    log = 'input: iifname "br-iot" log prefix "iot in: " level info / removed'
    areas = gateway.areas

    def surprising(wanted: Iterable[str]) -> dict[str, dict[str, str]]:
        wanted = list(wanted)
        found = areas(wanted)
        return {**found, "floods": {"limits.iot": "why"}} if log in [m.name for m in gateway.loaded] else found

    gateway.areas = surprising  # type: ignore[method-assign]
    found = ran(planner, ruleset, gateway)
    assert found[log].checks == {"limits.iot": "why"}
    assert not found["input: drop / removed"].checks


# the other ends


def python(program: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", program]
    return subprocess.Popen(command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.mark.parametrize(
    ("program", "says"),
    [("pass", "it has ended"), ("input()", "it gave no answer in 0 s"), ("print('no')", "no answer of it: 'no'")],
)
def test_an_end_that_says_nothing_or_nonsense_is_not_waited_for(program: str, says: str) -> None:
    with python(program) as process:
        assert process.stdin and process.stdout
        lines = Lines("it", process.stdout, process.stdin)
        with pytest.raises(SabotageError, match=says):
            lines.hear(0.2 if "input" in program else 20)
        process.stdin.close()


def test_who_speaks_to_an_end_that_is_gone_is_told() -> None:
    with python("pass") as process:
        assert process.stdin and process.stdout
        process.wait()
        with pytest.raises(SabotageError, match="it has ended"):
            Lines("it", process.stdout, process.stdin).say({"do": "list"})


# choice, report, review


def test_patterns_choose_mutants_and_one_that_meets_none_is_refused(ruleset: Ruleset) -> None:
    found = mutants(ruleset)
    assert [m.name for m in chosen(found, ["chain *"])] == [
        "chain input / policy accept",
        "chain forward / policy accept",
    ]
    assert chosen(found, []) == found
    with pytest.raises(SabotageError, match=r"no mutant is named 'nothing\*' \(one of"):
        chosen(found, ["chain *", "nothing*"])


def test_a_site_that_is_no_lab_is_refused() -> None:
    site = load("lab", ROOT)
    for lab, says in ((False, "prod: is no lab: nothing was broken"), ("machines", "a lab of virtual machines")):
        with pytest.raises(SabotageError, match=says):
            mutation.mutate(site.model_copy(update={"lab": lab, "name": "prod"}), say=lambda line: pytest.fail(line))


def report(*outcomes: Outcome, reviewed: tuple[Review, ...] = (), whole: bool = False, **more: Any) -> Report:
    return Report(Mutation(outcomes, whole, 1, 60.0, **more), reviewed)


TOLD = {"x": "why"}
EQUAL = Review(("drop*",), "equivalent", "the policy drops it all the same")


def test_a_mutant_that_probes_told_is_caught_and_one_with_a_reason_is_no_problem() -> None:
    found = report(Outcome("a", {"x": "why"}, True), Outcome("drop b", {}, True), reviewed=(EQUAL,))
    assert found.succeeded
    assert "2 mutants: 1 caught by probes, 1 by comparison only (1 equivalent, 0 uncovered" in mutation_report.table(
        found
    )
    assert mutation_report.as_dict(found)["mutants"][1]["reason"] == "the policy drops it all the same"


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (report(Outcome("a", {}, True)), "told by no probe: a"),
        (report(Outcome("a", {}, False)), "caught by nothing: a"),
        (report(Outcome("drop a", {}, False), reviewed=(EQUAL,)), "caught by nothing: drop a"),
        (report(Outcome("a", {}, False, unmade="Error")), "could not be loaded: a: Error"),
        (report(Outcome("drop a", TOLD, True), reviewed=(EQUAL,)), "reviewed as equivalent, and told by x: drop a"),
        (report(Outcome("a", TOLD, True), left=TOLD), "failed at the end, with the ruleset as declared: x: why"),
        (report(Outcome("a", TOLD, True), reviewed=(EQUAL,), whole=True), "names no mutant: drop*"),
    ],
    ids=["no reason", "nothing", "a reason is no catch", "unmade", "wrong reason", "not as before", "idle reason"],
)  # fmt: skip
def test_whatever_is_wrong_is_said_and_the_run_has_failed(found: Report, says: str) -> None:
    (line,) = found.problems
    assert line.endswith(says)
    assert not found.succeeded and not mutation_report.as_dict(found)["summary"]["succeeded"]


def test_a_run_of_nothing_is_no_success() -> None:
    assert not report().succeeded


def test_the_reviewed_list_of_the_kit_can_be_read_and_names_none_twice() -> None:
    patterns = [pattern for review in reviews() for pattern in review.mutants]
    assert patterns and len(patterns) == len(set(patterns))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[reviewed]", "no TOML"),
        ("x = 1", "unknown 'x'"),
        ("reviewed = 3", "'reviewed' is no list"),
        ("reviewed = [3]", "entry 1: no table"),
        ('[[reviewed]]\nmutants = ["a"]\nkind = "equivalent"', "entry 1: 'reason' is missing"),
        ('[[reviewed]]\nmutants = ["a"]\nkind = "equivalent"\nreason = "x"\nwho = 1', "entry 1: 'who' is unknown"),
        ('[[reviewed]]\nmutants = []\nkind = "equivalent"\nreason = "x"', "'mutants' is no list of patterns"),
        ('[[reviewed]]\nmutants = "a"\nkind = "equivalent"\nreason = "x"', "'mutants' is no list of patterns"),
        ('[[reviewed]]\nmutants = ["a"]\nkind = "fine"\nreason = "x"', "kind 'fine'"),
        ('[[reviewed]]\nmutants = ["a"]\nkind = "uncovered"\nreason = " "', "gives no reason"),
    ],
)
def test_a_reviewed_list_with_a_mistake_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "reviewed.toml"
    path.write_text(text)
    with pytest.raises(SabotageError, match=says):
        reviews(path)
    with pytest.raises(SabotageError, match="is not there"):
        reviews(tmp_path / "nothing.toml")
