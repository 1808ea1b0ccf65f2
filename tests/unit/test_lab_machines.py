"""A lab of virtual machines: how each is started, when it is made anew, and what is said over its console."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import threading
from dataclasses import replace
from ipaddress import ip_interface
from pathlib import Path

import pytest

from deploy.inventory import ROOT
from gatehouse.site import load
from lab import fresh, topology
from lab.errors import LabError
from lab.topology import GatewayHost, Port, Topology
from lab.vm import accelerator, console, field, images, manage
from lab.vm.guest.console import answered
from lab.vm.images import Image
from lab.vm.machine import CONSOLES, Machine, Plan

IMAGE = Image("server-12-0123", Path("/nowhere/server-12-0123"))
KEY = "ssh-ed25519 AAAA lab"


@pytest.fixture(scope="module")
def lab() -> Topology:
    """The lab of the site lab-vm."""
    return topology.from_site(load("lab-vm", ROOT), "lab-vm")


@pytest.fixture
def plans(lab: Topology) -> dict[str, Plan]:
    return {
        "gateway": manage.gateway_plan(lab, lab.gateways[0], IMAGE, KEY),
        "field": manage.field_plan(lab, IMAGE),
    }


def command(plan: Plan) -> str:
    return " ".join(Machine(Path("/lab"), plan.name).command(plan, "tcg"))


def test_the_site_has_three_segments_on_one_trunk_and_two_beside_it(lab: Topology) -> None:
    (gateway,) = lab.gateways
    links = {port.segment: port.link for port in gateway.ports}
    assert links == {
        "iot": "trunk.10", "management": "trunk.20", "guest": "trunk.30", "internal": "port-lan", "internet": "uplink",
    }  # fmt: skip
    assert lab.machines


def test_the_trunk_is_one_card_and_both_ends_of_each_wire_meet(plans: dict[str, Plan]) -> None:
    ends = {name: {w.name: w.netdev for w in plan.wires if "stream" in w.netdev} for name, plan in plans.items()}
    assert list(ends["gateway"]) == list(ends["field"]) == ["trunk", "port-lan", "uplink"]
    for card in ends["gateway"]:
        assert ends["field"][card] == f"stream,server=on,addr.type=unix,addr.path={card}.wire"
        assert ends["gateway"][card] == f"stream,server=off,addr.type=unix,addr.path={card}.wire"


def test_no_interface_of_the_operators_machine_takes_part(plans: dict[str, Plan]) -> None:
    for plan in plans.values():
        netdevs = [after.split()[0] for after in command(plan).split("-netdev ")[1:]]
        assert len(netdevs) == len(plan.wires)
        assert {netdev.partition(",")[0] for netdev in netdevs} <= {"stream", "user"}
    assert "user" not in command(plans["gateway"])  # its way out leads through the field machine, too


def test_a_card_leaves_vlans_alone_so_that_a_loaded_state_still_has_them(plans: dict[str, Plan]) -> None:
    for plan in plans.values():
        cards = [word for word in command(plan).split() if word.startswith("virtio-net-pci")]
        assert len(cards) == len(plan.wires)
        assert all(card.endswith(",ctrl_vlan=off") for card in cards)


def test_the_operators_ports_are_on_loopback_and_lead_to_a_fresh_and_a_hardened_gateway(
    lab: Topology, plans: dict[str, Plan]
) -> None:
    assert field.forwards(lab.gateways[0], 2221) == {2221: 22, 2222: 2222}
    assert "restrict=on" in command(plans["field"])
    leads = [part for part in command(plans["field"]).replace(",", " ").split() if part.startswith("hostfwd=")]
    assert leads == [f"hostfwd=tcp:127.0.0.1:{port}-10.0.3.15:{port}" for port in (2221, 2222)]


def test_a_fresh_gateway_has_its_management_address_on_the_tagged_vlan(lab: Topology) -> None:
    (gateway,) = lab.gateways
    files = {path.rpartition("/")[2]: content.decode() for path, (content, _) in fresh.files(gateway, KEY).items()}
    assert "Kind=vlan" in files["10-lab-fresh-trunk.20.netdev"]
    assert "Id=20\n" in files["10-lab-fresh-trunk.20.netdev"]
    assert "VLAN=trunk.20\n" in files["10-lab-fresh-trunk.network"]
    assert "Address=" not in files["10-lab-fresh-trunk.network"]  # the native VLAN is unused
    assert "Address=10.10.20.1/24\n" in files["10-lab-fresh-trunk.20.network"]
    assert "10-lab-fresh-trunk.10.network" not in files


def test_a_machine_is_made_anew_for_another_image_key_or_wire_only(plans: dict[str, Plan], lab: Topology) -> None:
    plan = plans["gateway"]
    assert plan.recipe == manage.gateway_plan(lab, lab.gateways[0], IMAGE, KEY).recipe
    others = [
        replace(plan, image=Image("server-12-4567", IMAGE.folder)),
        manage.gateway_plan(lab, lab.gateways[0], IMAGE, KEY + "2"),
        replace(plan, wires=plan.wires[1:]),
    ]
    assert plan.recipe not in {other.recipe for other in others}


def test_a_process_that_took_a_dead_machines_number_is_not_ended(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "gateway")
    machine.folder.mkdir()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (machine.folder / "pid").write_text(str(stranger.pid))
        assert machine.pid is None
        machine.stop()
        assert stranger.poll() is None
        stranger.kill()


def test_more_than_one_gateway_is_refused(lab: Topology) -> None:
    two = replace(lab, gateways=(lab.gateways[0], replace(lab.gateways[0], name="other")))
    with pytest.raises(LabError, match="has 2 gateways"):
        manage.up(two)


def test_a_lab_that_is_not_up_says_how_to_bring_it_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.state.HOME", tmp_path)
    for ask in (lambda: manage.run("none", "device", ["true"]), lambda: manage.save("none", "x")):
        with pytest.raises(LabError, match=r"isn't up \(run 'invoke lab.up --vm'\)"):
            ask()
    assert manage.status("none") == []


def test_another_program_on_an_operators_port_is_named(lab: Topology) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        gateway = GatewayHost("gateway", lab.gateways[0].ports, (), lab.gateways[0].resolver, (port,))
        with pytest.raises(LabError, match=f"port {port} of 127.0.0.1 is taken"):
            manage.refuse_taken_ports(gateway)


def test_an_image_is_named_by_what_it_is_made_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    built: list[str] = []

    def build(made: Image, *_: object) -> None:
        built.append(made.tag)
        made.folder.mkdir(parents=True)

    monkeypatch.setattr(images, "_build", build)
    monkeypatch.setattr(images, "need_mmdebstrap", lambda _: None)
    lines: list[str] = []
    first = images.image("12", lines.append)
    assert images.image("12", lines.append) == first  # it is there already
    monkeypatch.setattr(images, "SIZE", "5G")
    second = images.image("12", lines.append)
    field_machine = images.image("12", lines.append, field=True)
    assert built == [first.tag, second.tag, field_machine.tag]
    assert len(set(built)) == 3
    with pytest.raises(LabError, match="Debian '11' is none of"):
        images.image("11", lines.append)


def test_a_program_that_is_run_over_the_console_says_what_it_says_on_each_stream() -> None:
    ask = {"argv": ["sh", "-c", "cat; echo bad >&2; exit 3"], "stdin": base64.b64encode(b"in").decode(), "timeout": 20}
    assert answered(ask) == (b"in", b"bad\n", 3)
    assert answered({**ask, "argv": ["sh", "-c", "sleep 60 & wait"], "timeout": 0.2}) == (b"", b"", None)
    assert answered({**ask, "argv": ["/nowhere/program"]})[2] == 127


def serving(machine: Machine) -> threading.Thread:
    """A console that first says what an earlier, killed client did not wait for."""
    machine.folder.mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(machine.folder / "console.0"))
    listener.listen()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb") as stream:
            request = json.loads(stream.readline())
            stream.write(b'half a line\n{"id": "of another", "returncode": 9, "stdout": "", "stderr": ""}\n')
            out, err, status = answered(request)
            texts = {"stdout": base64.b64encode(out).decode(), "stderr": base64.b64encode(err).decode()}
            stream.write(json.dumps({"id": request["id"], "returncode": status, **texts}).encode() + b"\n")

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_an_answer_that_somebody_else_did_not_wait_for_is_not_taken_for_ones_own(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "gateway")
    thread = serving(machine)
    done = console.run(machine, ["sh", "-c", "cat; exit 4"], "größer")
    thread.join()
    assert (done.stdout, done.stderr, done.returncode) == ("größer", "", 4)


def test_a_machine_that_does_not_run_is_no_machine_to_talk_to(tmp_path: Path) -> None:
    machine = Machine(tmp_path / ("deep" * 40), "gateway")  # deeper than an address of a socket can be long
    machine.folder.mkdir(parents=True)
    with pytest.raises(LabError, match="isn't running"):
        console.run(machine, ["true"])
    assert CONSOLES > 4  # each segment's host is asked at the same time


def test_the_end_of_a_terminal_is_found_though_it_comes_in_pieces() -> None:
    assert console.begins(b"text\x1b]ga", b"\x1b]gatehouse;00\x07") == 4
    assert console.begins(b"text", b"\x1b]gatehouse;00\x07") == 0


@pytest.mark.skipif(shutil.which(accelerator.QEMU) is None, reason="no QEMU on this machine")
def test_an_accelerator_is_tried_by_starting_a_machine_that_ends_itself() -> None:
    assert accelerator.runs("tcg", seconds=60)
    assert not accelerator.runs("tcg", seconds=0.001)  # one that hangs


def test_an_unknown_accelerator_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEHOUSE_ACCEL", "warp")
    with pytest.raises(LabError, match="GATEHOUSE_ACCEL=warp is none of kvm, tcg"):
        accelerator.acceleration()


def test_a_port_knows_the_interface_of_its_untagged_frames() -> None:
    addresses = (ip_interface("10.10.10.1/24"),)
    assert Port("iot", "port-iot", addresses).link == "port-iot"
    assert Port("iot", "trunk", addresses, vlan=10).link == "trunk.10"
