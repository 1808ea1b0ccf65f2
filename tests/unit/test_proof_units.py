"""What the compliance suite asks of a gateway's units, packages and accounts: much in one question."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from gatehouse.proof.channel import ProbeError
from gatehouse.proof.observation import Observation
from gatehouse.proof.probes import facts
from gatehouse.site import Listener, Service
from tests.compliance import accounts, system, units
from tests.compliance.live import Live
from tests.compliance.once import Memory

LOST = {"outcome": "error", "error": "position gateway is gone"}


@dataclass
class Here:
    """A site with one gateway."""

    services: tuple[Service, ...] = ()

    def services_of(self, _: str) -> tuple[Service, ...]:
        """Those that are given."""
        return self.services


def printed(output: str, status: int = 0, error: str = "") -> dict[str, Any]:
    return {"outcome": "ran", "status": status, "output": output, "error": error}


class Gateway(Live):
    """One that answers what it is told to."""

    def __init__(self, answer: Callable[[list[str]], Mapping[str, Any]], *services: Service) -> None:
        self.name, self.memory, self.site = "gw1", Memory(), Here(services)  # type: ignore[assignment]
        self.answer = answer
        self.asked: list[list[str]] = []

    def ask(self, work: Any, patience: float = 180) -> dict[str, list[Observation]]:
        """Answers programs alone."""
        self.asked += [probe["argv"] for probes in work.values() for probe in probes]
        return {at: [Observation(at, p, {"at": "now", **self.answer(p["argv"])}) for p in probes]
                for at, probes in work.items()}  # fmt: skip


BROKER = Service(name="broker", title="broker", units=("broker.service",), network_facing=True)
CLOCK = Service(name="clock", title="clock", units=("clock.timer", "clock.service"))
WIRE = Service(name="wire", title="wire", units=("wire@a.service",), network_facing=True)


def systemd(active: Mapping[str, str], files: Mapping[str, str], instances: Mapping[str, str]) -> Any:
    """Answers as systemctl does of these units: how they are, and their files', by what tells it."""

    def answer(argv: list[str]) -> Mapping[str, Any]:
        asked = argv[argv.index("--") + 1 :]
        match argv[1]:
            case "show":
                blocks = (f"ActiveState={active.get(unit, 'inactive')}\nId={unit}\n" for unit in asked)
                return printed("\n".join(blocks))
            case "list-unit-files":
                return printed("".join(f"{unit} {files[unit]} enabled\n" for unit in asked if unit in files))
            case _:
                return printed(f"{instances[asked[0]]}\n") if asked[0] in instances else printed("", 4, "no such file")

    return answer


def test_each_unit_has_its_own_state_whatever_order_systemd_tells_it_in():
    live = Gateway(
        systemd(
            {"broker.service": "active", "clock.timer": "active", "wire@a.service": "reloading"},
            {"clock.timer": "disabled", "broker.service": "enabled", "clock.service": "static"},
            {"wire@a.service": "enabled"},
        ),
        BROKER,
        CLOCK,
        WIRE,
    )
    found = units.running(live)
    assert {unit: (state.runs, state.starts) for unit, state in found.items()} == {
        "broker.service": (True, True),
        "clock.timer": (True, False),
        "clock.service": (False, True),
        "wire@a.service": (True, True),
    }
    assert len(live.asked) == 3
    assert units.running(live) is found
    assert len(live.asked) == 3


@pytest.mark.parametrize("word", ["failed", "activating", "deactivating", "inactive", ""])
def test_what_is_not_active_does_not_run(word):
    assert not units.State(word, "enabled").runs


@pytest.mark.parametrize("word", ["disabled", "masked", "masked-runtime", "linked", "bad", "not-found", ""])
def test_what_nobody_enables_does_not_start(word):
    assert not units.State("active", word).starts


def test_a_unit_that_is_not_there_does_not_run_and_does_not_start():
    found = units.states(Gateway(systemd({}, {}, {})), ["gone.service"])
    assert found == {"gone.service": units.State("inactive", "not-found")}


def test_who_asks_for_the_state_of_now_gets_it_whoever_asked_before():
    active = {"broker.service": "active"}
    live = Gateway(systemd(active, {"broker.service": "enabled"}, {}), BROKER)
    assert units.running(live)["broker.service"].runs
    active.clear()
    assert not units.states(live, ["broker.service"])["broker.service"].runs


def test_a_gateway_that_tells_of_fewer_units_or_of_none_is_an_error():
    with pytest.raises(ProbeError, match="gw1: systemctl show tells of 1 units, not of 2"):
        units.shown(Gateway(lambda _: printed("Id=a.service\n")), ["a.service", "b.service"])
    with pytest.raises(ProbeError, match="of 0 units, not of 1: Failed to connect to bus"):
        units.shown(Gateway(lambda _: printed("", 1, "Failed to connect to bus\n")), ["a.service"])
    for ask in (units.running, units.properties):
        with pytest.raises(ProbeError, match="gw1: systemctl show: .*position gateway is gone"):
            ask(Gateway(lambda _: LOST, BROKER))


def test_properties_are_those_of_the_unit_and_a_timer_without_a_next_time_has_none():
    times = {"clock.timer": "Fri 2026-11-27 06:00:00 UTC", "clock.service": ""}

    def answer(argv: list[str]) -> Mapping[str, Any]:
        asked = argv[argv.index("--") + 1 :]
        return printed("\n".join(f"NextElapseUSecMonotonic=infinity\nNextElapseUSecRealtime={times.get(unit, '')}\n"
                                 f"Before=a=b {unit}\n" for unit in asked))  # fmt: skip

    live = Gateway(answer, CLOCK)
    assert units.properties(live)["clock.service"]["Before"] == "a=b clock.service"
    assert units.next_times(live, "clock.timer") == {"NextElapseUSecRealtime": times["clock.timer"]}
    assert units.next_times(live, "clock.service") == {}
    assert len(live.asked) == 1


def test_only_services_are_rated_and_only_those_that_face_a_network():
    said = "→ Overall exposure level for broker.service: 1.4 OK 🙂\n"
    live = Gateway(lambda _: printed(said, 1, "wire@a.service: not found"), BROKER, CLOCK, WIRE)
    seen, rated = units.ratings(live)
    assert rated == {"broker.service": "1.4"}
    assert seen.result["error"] == "wire@a.service: not found"
    assert live.asked[0][-2:] == ["broker.service", "wire@a.service"]


def test_a_package_that_is_half_way_is_there_and_not_installed():
    rows = ["ii  sudo 1.9", "hi  nginx 1.22", "iF  nmap 7.9", "iU  procps 4.0", "iiR kmod 30", "rc  exim4 4.9"]
    live = Gateway(lambda _: printed("\n".join([*rows, "ii  libc6:amd64 2.36", "un  mawk "])))
    assert {name for name, package in system.packages(live).items() if package.installed} == {"sudo", "nginx", "libc6"}
    assert system.installed(live) == {"sudo": "1.9", "nmap": "7.9", "procps": "4.0", "kmod": "30", "libc6": "2.36"}


def test_a_gateway_that_tells_of_no_package_is_an_error():
    for answer in (LOST, printed("", 2, "dpkg-query: error: parsing file '/var/lib/dpkg/status'")):
        with pytest.raises(ProbeError, match="gw1: dpkg-query: .*(is gone|parsing file)"):
            system.packages(Gateway(lambda _, answer=answer: answer))


def run(argv: list[str]) -> Mapping[str, Any]:
    return facts.run({"kind": "run", "argv": argv})


def test_testinfra_asks_over_the_agent_and_each_time_anew(tmp_path):
    live = Gateway(run)
    file = tmp_path / "a file's name"
    assert not live.host.file(str(file)).exists
    file.write_text("ä\n")
    assert live.host.file(str(file)).exists
    assert live.host.file(str(file)).content_string == "ä\n"
    assert live.host.file(str(file)).content == "ä\n".encode()
    file.write_text("b")
    assert live.host.file(str(file)).content_string == "b"
    assert live.host.run("exit 3").rc == 3


def test_a_file_is_looked_for_once(tmp_path):
    live = Gateway(run)
    assert not live.exists(f"{tmp_path}/file")
    (tmp_path / "file").touch()
    assert not live.exists(f"{tmp_path}/file")
    assert Gateway(run).exists(f"{tmp_path}/file")


def test_what_a_lost_gateway_is_asked_is_an_error():
    live = Gateway(lambda _: LOST)
    with pytest.raises(ProbeError, match="gw1: .*position gateway is gone"):
        live.host.run("true")
    with pytest.raises(ProbeError, match="gw1: /etc/passwd: .*position gateway is gone"):
        live.exists("/etc/passwd")


def port(number: int) -> Listener:
    return Listener(name="x", port=number, encryption="none", authentication="none", data="-", compromise="-")


def asked_as(others: str) -> Gateway:
    return Gateway(lambda argv: printed(others if argv[0] == "runuser" else "8086 open\n8088 open\n"))


def test_every_port_must_be_shut_for_every_other_account():
    noted: list[Any] = []
    both = (port(8086), port(8088))
    live = asked_as("8086 ConnectionRefusedError\n8088 ConnectionRefusedError\n")
    accounts.are_shut_for_others(live, noted.append, *both)
    assert len(noted) == 2 * (1 + len(accounts.STRANGERS))
    assert len(live.asked) == 1 + len(accounts.STRANGERS)
    for open_one in ("8086 ConnectionRefusedError\n8088 open\n", "8086 ConnectionRefusedError\n", "", "8088 open\n"):
        with pytest.raises(AssertionError, match="nobody connects to 808[68]/tcp: (open|no word)"):
            accounts.are_shut_for_others(asked_as(open_one), noted.append, *both)
