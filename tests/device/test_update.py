"""Simulated devices take updates from a server over mutual TLS, and report to a real broker."""

from __future__ import annotations

import json
import shutil
import ssl
from hashlib import sha256
from typing import Any

import pytest

from gatehouse.messages import verify
from gatehouse.updates.judgement import turn_of
from tests.device.bench import CRASHED, NO_POWER, Bench, Device, an_image


def test_an_update_is_fetched_tried_proved_and_counted(bench: Bench) -> None:
    device = bench.device()
    assert device.check() == "not-found"
    bench.publish("1.1")
    first = device.start("--check")
    assert (first.running, first.counter, first.check) == ("1.0", "0", "installed")
    second = device.start()
    assert (second.running, second.slot, second.begin, second.prove) == ("1.1", "1", "trying", "confirmed")
    assert second.counter == "1"
    third = device.start("--check")
    assert (third.running, third.begin, third.check) == ("1.1", "ok", "up-to-date")
    assert device.slot(1) == an_image("1.1")


def test_updates_go_to_the_slots_in_turn(bench: Bench) -> None:
    device = bench.device()
    for number in range(1, 4):
        bench.publish(f"1.{number}")
        assert device.check() == "installed"
        assert (device.start().running, device.start().slot) == (f"1.{number}", str(number % 2))


def test_a_device_says_what_it_runs_in_signed_telemetry(bench: Bench) -> None:
    device = bench.device()
    assert device.start().broker == "ok"
    device.configure(hmac_key="22" * 32, name="somebody-else")
    assert device.start().broker == "refused"  # the broker knows it by its certificate, not by what it says


def test_the_report_is_one_that_the_intake_verifies(bench: Bench) -> None:
    device = bench.device()
    assert said(bench, device, 1) == [{"version": "1.0", "counter": 0, "failed": 0, "update": "ok"}]


def test_what_came_of_an_update_is_reported_too(bench: Bench) -> None:
    device = bench.device()
    bench.publish("1.1")
    assert device.check() == "installed"
    tried, confirmed = said(bench, device, 2)
    assert tried == {"version": "1.1", "counter": 0, "failed": 0, "update": "trying"}
    assert confirmed == {"version": "1.1", "counter": 1, "failed": 0, "update": "confirmed"}
    bench.publish("1.2", "crash")
    assert (device.check(), device.start().status) == ("installed", CRASHED)
    back, looked = said(bench, device, 2, "--check")
    assert back == {"version": "1.1", "counter": 1, "failed": 2, "update": "reverted"}
    assert looked == {"version": "1.1", "counter": 1, "failed": 2, "update": "failed-before"}


def said(bench: Bench, device: Device, count: int, *options: str) -> list[dict[str, Any]]:
    """What a device publishes at a start, verified: from a broker that keeps it for the intake's account."""
    pki, key = bench.broker.target.pki, bytes.fromhex("11" * 32)
    with bench.broker.client(pki.client("gatehouse-intake")) as intake:
        intake.subscribe("devices/+/telemetry/+")
        assert device.start(*options).broker == "ok"
        messages = [intake.next_message() for _ in range(count)]
    return [json.loads(verify({"pump-02": {1: key}}, topic, message).content) for topic, message in messages]


@pytest.mark.parametrize("behaviour", ["mute", "crash"])
def test_an_image_that_does_not_prove_itself_is_rolled_back_and_not_tried_again(bench: Bench, behaviour: str) -> None:
    device = bench.device()
    bench.publish("1.1", behaviour)
    assert device.check() == "installed"
    tried = device.start()
    assert tried.status == CRASHED or (tried.running, tried.prove) == ("1.1", "reverted")
    back = device.start("--check")
    assert (back.running, back.counter, back.check) == ("1.0", "0", "failed-before")
    bench.publish("1.2")
    assert device.check() == "installed"
    assert (device.start().prove, device.start().running) == ("confirmed", "1.2")


def test_an_image_that_is_signed_again_is_tried_again(bench: Bench) -> None:
    device = bench.device()
    manifest = bench.publish("1.1")
    device.configure(broker_port=1)
    assert device.check() == "installed"
    assert device.start().prove == "reverted"  # there was no broker to be reached
    device.configure(broker_port=bench.broker.port)
    assert device.check() == "failed-before"
    bench.server.files["/relay/manifest"] = bench.sign(an_image("1.1"), "1.1", now=bench.now + 5)
    assert bench.server.files["/relay/manifest"] != manifest
    assert device.check() == "installed"
    assert device.start().prove == "confirmed"


def test_an_update_goes_on_where_the_connection_ended(bench: Bench) -> None:
    device = bench.device()
    bench.publish("1.1", size=20_000)
    path, left = "/relay/1.1.bin", [3000, 11_111]

    def ends_early(connection: ssl.SSLSocket, path: str, fields: dict[str, str]) -> None:
        if not left:
            return bench.server.serve(connection, path, fields)
        content = bench.server.files[path]
        start = int(fields.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        status = f"206 x\r\nContent-Range: bytes {start}-19999/20000" if start else "200 OK"
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {20_000 - start}\r\n\r\n".encode())
        connection.sendall(content[start : left.pop(0)])
        return None

    bench.server.answers[path] = ends_early
    assert device.check() == "installed"
    assert bench.server.asked.count(path) == 3
    assert device.start().running == "1.1"


def test_a_roll_out_reaches_a_share_first_and_then_all(bench: Bench) -> None:
    seed = bench.publish("1.1", share=4000)[40:56]
    names = sorted((f"pump-{number:02}" for number in range(20)), key=lambda name: turn_of(seed, name))
    chosen = (*names[:3], *names[-3:])
    devices = [bench.device(name) for name in chosen]
    first = [device.check() for device in devices]
    assert first == ["installed" if turn_of(seed, name) < 4000 else "not-its-turn" for name in chosen]
    assert {*first} == {"installed", "not-its-turn"}
    bench.publish("1.1", share=10_000)
    # those that had it are confirmed by this start, and know that it is theirs already
    assert [device.check() for device in devices] == [
        "up-to-date" if word == "installed" else "installed" for word in first
    ]
    assert {device.start().running for device in devices} == {"1.1"}


def test_a_key_is_replaced_by_a_release_and_a_late_device_crosses_the_bridge(bench: Bench) -> None:
    device, late = bench.device(), bench.device("pump-03")
    bench.publish("1.1")
    assert (device.check(), device.start().prove) == ("installed", "confirmed")
    bench.keys.replace("current")
    bridge = bench.publish("1.2")
    assert (device.check(), device.start().prove) == ("installed", "confirmed")
    bench.keys.replace("current")
    newest = bench.publish("1.3")
    # the one that was away knows neither key of today, and finds the bridge beside the newest
    assert late.check() == "unknown-key"
    bench.server.files["/relay/manifest"] = newest + bridge
    for each, versions in ((device, ["1.3"]), (late, ["1.2", "1.3"])):
        for version in versions:
            assert each.check() == "installed"
            assert (each.start().prove, each.start().running) == ("confirmed", version)


def boots_old_or_new(device: Device, versions: set[str]) -> str:
    """A start after a loss of power: one of the two runs, whole; which one."""
    start = device.start()
    assert start.status == 0 and start.running in versions, start
    assert device.slot(int(start.slot)) == an_image(start.running, behaviour_of(device, int(start.slot)))
    return start.running


def behaviour_of(device: Device, slot: int) -> str:
    return device.slot(slot, 64).split(b"\n")[0].split(b" ")[3].decode()


def every_cut(device: Device, *options: str) -> list[Device]:
    """The device after each start whose power failed, for every write of it; the one after the last was not cut."""
    cut: list[Device] = []
    while len(cut) < 100:
        twin = device.twin(f"cut-{device.place.name}-{len(options)}-{len(cut)}")
        status = twin.start("--cut", str(len(cut)), *options).status
        cut.append(twin)
        if status != NO_POWER:
            return cut
    raise AssertionError("it never ends")


def test_a_loss_of_power_at_any_write_of_an_update_leaves_the_old_or_the_new_image(bench: Bench) -> None:
    device = bench.device()
    bench.publish("1.1")
    devices = every_cut(device, "--check")
    assert len(devices) > 8  # two sectors, five blocks, the state, the boot loader's note
    for each in devices:
        boots_old_or_new(each, {"1.0", "1.1"})
        if each.start("--check").check == "installed":
            each.start()
        done = each.start("--check")
        assert (done.running, done.counter, done.check) == ("1.1", "1", "up-to-date")


def test_a_loss_of_power_at_any_write_of_the_first_start_leaves_the_old_or_the_new_image(bench: Bench) -> None:
    device = bench.device()
    bench.publish("1.1")
    assert device.check() == "installed"
    devices = every_cut(device)
    assert len(devices) > 3  # the boot loader tries it, and keeps it; the counter
    for each in devices:
        running = boots_old_or_new(each, {"1.0", "1.1"})
        start = each.start("--check")
        # either it is there with its counter, or it was tried once and given up
        assert (start.running, start.counter, start.check) in {
            ("1.1", "1", "up-to-date"), ("1.0", "0", "failed-before")
        }, running  # fmt: skip


def test_a_loss_of_power_at_any_write_of_a_roll_back_leaves_the_old_image(bench: Bench) -> None:
    device = bench.device()
    bad = bench.publish("1.1", "mute")
    assert device.check() == "installed"
    good = bench.publish("1.2")
    for each in every_cut(device):
        bench.server.files["/relay/manifest"] = bad
        each.start()
        back = each.start("--check")
        assert (back.running, back.counter, back.check) == ("1.0", "0", "failed-before")
        bench.server.files["/relay/manifest"] = good
        assert (each.check(), each.start().prove) == ("installed", "confirmed")


def test_a_state_that_is_lost_in_one_copy_is_taken_from_the_other(bench: Bench) -> None:
    device = bench.device()
    for version in ("1.1", "1.2"):
        bench.publish(version)
        assert (device.check(), device.start().counter != "") == ("installed", True)
    for copy in (0, 1):
        twin = device.twin(f"lost-{copy}")
        path = twin.place / f"state{copy}"
        path.write_bytes(sha256(path.read_bytes()).digest() * 22)
        assert int(twin.start().counter) >= 1
    both = device.twin("lost-both")
    for copy in (0, 1):
        (both.place / f"state{copy}").unlink()
    assert both.start().status == 0  # it runs, and knows no more than when it was made


def test_a_slot_without_an_image_is_left_for_the_other_one(bench: Bench) -> None:
    device = bench.device()
    bench.publish("1.1")
    assert device.check() == "installed"
    shutil.copy(device.place / "device.conf", device.place / "slot1")  # not what was written there
    assert device.start().status == CRASHED
    assert (device.start().running, device.start().running) == ("1.0", "1.0")
