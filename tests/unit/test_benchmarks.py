"""The benchmarks' arithmetic, and that Ansible is asked for the states of the roles. Nothing here is timed."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks import intake, network, playbook
from benchmarks import verify as proof
from benchmarks.measure import BenchmarkError, Ratio, Run, in_turn, table, timed
from benchmarks.states import of_operations
from gatehouse.messages import verify
from gatehouse.messages.points import point
from roles import lifecycle, undo

FILE = lifecycle.File("/etc/one", b"content\n", "root", "mosquitto", 0o640)


def pairs(*seconds: tuple[float, float]) -> list[tuple[Run, Run]]:
    return [(Run(ours, 2**20), Run(theirs)) for ours, theirs in seconds]


def test_a_ratio_is_the_median_of_the_paired_runs_ratios() -> None:
    # The machine was busy during the second pair, which is no reason to think otherwise of either.
    ratio = Ratio("deploy ÷ floor", pairs((2, 1), (20, 9), (3, 1)), to_reach=3)
    assert ratio.value == pytest.approx(20 / 9)
    assert ratio.reached
    assert not Ratio("deploy ÷ floor", ratio.runs, to_reach=2).reached


def test_the_table_says_what_was_not_reached() -> None:
    shown = table([Ratio("good", pairs((1, 20)), 1 / 12), Ratio("bad", pairs((4, 1)), 3)]).splitlines()
    good, bad = shown[2:]
    assert "1/20" in good
    assert "≤ 1/12" in good
    assert "not reached" in bad
    assert "not reached" not in good
    assert len({len(line) for line in shown}) == 1


def test_json_holds_every_run() -> None:
    values = json.loads(json.dumps(Ratio("a", pairs((1, 2), (3, 4)), 1).as_dict()))
    assert values["runs"] == [[1, 2], [3, 4]]
    assert values["seconds"] == [2, 3]
    assert values["peak_bytes"] == [2**20, None]


def test_a_child_is_measured_and_one_that_fails_is_not() -> None:
    run = timed([sys.executable, "-c", "x = bytearray(50_000_000)"])
    assert run.seconds > 0
    assert run.peak > 50_000_000
    large = bytearray(b"x") * 60_000_000
    assert timed([sys.executable, "-c", "pass"]).peak < len(large)
    with pytest.raises(BenchmarkError, match="exit status 3: the reason"):
        timed([sys.executable, "-c", "print('the reason'); raise SystemExit(3)"])
    with pytest.raises(BenchmarkError, match="no-such-program"):
        timed(["no-such-program"])


def test_what_is_compared_takes_turns() -> None:
    order: list[str] = []

    def noted(name: str) -> Run:
        order.append(name)
        return Run(1)

    assert len(in_turn(2, partial(noted, "a"), partial(noted, "b"), log=lambda _: None)) == 2
    assert order == ["a", "b", "a", "b"]


def prepared(operation: Any, *args: Any, **kwargs: Any) -> Callable[[], Iterator[Any]]:
    """As pyinfra keeps an operation that it has not run yet."""
    func = operation._inner

    def command_generator() -> Iterator[Any]:
        yield from func(*args, **kwargs)

    return command_generator


def test_the_states_are_those_of_the_operations_each_once() -> None:
    steps = (
        partial(lifecycle.files._inner, lifecycle.Directory("/etc/x"), FILE),
        partial(lifecycle.running._inner, "one.service"),
    )
    states, unknown = of_operations(
        [
            prepared(lifecycle.packages, "one", "two"),
            prepared(lifecycle.packages, "two"),
            prepared(undo.guarded, "change", *steps, saves=[], restore="true"),
            prepared(lifecycle.files, FILE, check="true"),
        ]
    )
    assert not unknown
    assert [state["kind"] for state in states] == ["packages", "directory", "file", "unit"]
    assert states[2]["mode"] == "0640"
    assert base64.b64decode(states[2]["content"]) == FILE.content


def test_an_operation_that_no_task_stands_for_is_named() -> None:
    from pyinfra.operations import server

    states, unknown = of_operations([prepared(server.shell, commands="true"), prepared(lifecycle.absent, "/etc/old")])
    assert unknown == ["shell"]
    assert states == [{"kind": "absent", "path": "/etc/old"}]


def test_the_playbook_has_a_task_for_each_state_and_the_contents_beside_it(tmp_path: Path) -> None:
    states, _ = of_operations(
        [prepared(lifecycle.files, lifecycle.Directory("/etc/x"), FILE), prepared(lifecycle.running, "one.service")]
    )
    states += [{"kind": "setting", "key": "-net.ipv4.ip_forward", "value": "1"}] * 2
    connection = {"ssh_hostname": "192.0.2.1", "ssh_port": 22, "ssh_user": "admin", "ssh_key": "key", "_sudo": True}
    playbook.write(states, {**connection, "ssh_known_hosts_file": "hosts"}, tmp_path)
    (play,) = json.loads((tmp_path / "playbook.yml").read_text())
    directory, copy, unit, settings = play["tasks"]
    assert play["become"] is True
    assert directory["ansible.builtin.file"]["state"] == "directory"
    assert (tmp_path / copy["ansible.builtin.copy"]["src"]).read_bytes() == FILE.content
    assert (tmp_path / copy["ansible.builtin.copy"]["src"]).stat().st_mode & 0o077 == 0
    assert unit["ansible.builtin.systemd_service"] == {"name": "one.service", "enabled": True, "state": "started"}
    assert settings["ansible.builtin.shell"].count("/proc/sys/net/ipv4/ip_forward") == 2
    assert "pipelining = True" in (tmp_path / "ansible.cfg").read_text()


def test_a_state_without_a_task_is_refused() -> None:
    with pytest.raises(BenchmarkError, match="no task for weather"):
        playbook.tasks([{"kind": "weather"}])


def test_the_messages_that_are_measured_are_good_ones() -> None:
    topic, payload = intake._message("device-3", 7)
    found = verify({"device-3": {1: intake.KEY}}, topic, payload)
    assert (found.device, found.sequence) == ("device-3", 7)
    line, names = point(found)
    assert line.startswith("telemetry,device=device-3,") and names == ["temperature", "humidity"]


def test_the_firewall_is_measured_with_every_device_in_its_maps_and_limits_that_are_not_reached() -> None:
    few, many = (network.text(number) for number in (10, 40))
    assert many.count(": jump profile_") - few.count(": jump profile_") == 2 * 30
    assert "limit rate over 10000000/second" in many and "skuid != { root }" in many


def test_of_the_suite_each_file_has_its_share_in_the_sample_and_in_the_estimate():
    checks = [f"a.py::{n}" for n in range(5)] + ["b.py::x"]
    sample = proof.sampled(checks, 4)
    assert sample == ["a.py::0", "a.py::4", "b.py::x"]
    assert proof.estimate(checks, {"a.py::0": 1.0, "a.py::4": 3.0, "b.py::x": 10.0}) == 5 * 2 + 10
    assert proof.sampled(checks, 1) == checks


def test_a_site_that_is_not_proven_is_not_measured_and_what_failed_is_named(monkeypatch):
    said = "....\nfailed: host.audit (gateway): no rules\n\nlab: FAILED: 2 of 3\nreport: somewhere\n"

    def ran(command, **_):
        return subprocess.CompletedProcess(command, 1, said, "")

    monkeypatch.setattr(proof.subprocess, "run", ran)
    with pytest.raises(BenchmarkError, match=r"'lab': failed: host\.audit \(gateway\): no rules \("):
        proof.collected("lab")
