"""A gateway as the suite sees it: one SSH connection, positions in its segments, and what was seen from them."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import paramiko
import testinfra
from testinfra.host import Host

from deploy import positions, vaults
from deploy.inventory import connection
from gatehouse.errors import GatehouseError
from gatehouse.identity import Pki, Vault, programs, psk
from gatehouse.identity.pins import broker_host
from gatehouse.proof import expect, plays, reports, scans, stored
from gatehouse.proof.channel import Agent, ProbeError
from gatehouse.proof.credentials import CUT_OFF_HARDWARE, OTHER_PROBE, PROBE, Shown, foreign_anchor, shown
from gatehouse.proof.expect import Offer, Place, split
from gatehouse.proof.observation import Observation
from gatehouse.proof.sockets import CONNECTED, LISTENING, Connection, Socket, connections, lasting, sockets
from gatehouse.site import INTERNET, Listener, Policy, Site, derive
from roles import influxdb
from roles.intake.files import METRICS, probe_key
from roles.target import Target
from tests import database
from tests.compliance.field import Field
from tests.compliance.once import Memory, once
from tests.compliance.remote import callers

# Seconds to wait for an answer that must come: a busy gateway takes its time.
PATIENT = 8.0
# The position of a device in quarantine: no segment can have that name.
CUT_OFF = "cut-off"
# That of a device with destinations of its own, and those of hosts that want too much, one a segment.
LISTED = "listed"
EAGER = "eager-"

Probes = Mapping[str, Iterable[Mapping[str, Any]]]


class Gateways:
    """The gateways of a site, each connected to when it is first asked for."""

    def __init__(self, site: Site, begin: Callable[[Live], None]) -> None:
        """`begin` is told of each as soon as it is connected to."""
        self._site, self._begin = site, begin
        self._open: dict[str, Live] = {}
        self._lost: dict[str, GatehouseError] = {}
        self._stack = ExitStack()

    def __getitem__(self, name: str) -> Live:
        if name in self._lost:
            raise self._lost[name]
        if name not in self._open:
            try:
                live = self._stack.enter_context(Live(self._site, name))
                _ = live.agent
            except GatehouseError as error:
                self._lost[name] = error
                raise
            self._open[name] = live
            self._begin(live)
        return self._open[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


class Live:
    """One gateway. Everything is done when it is first asked for, and once."""

    asks_hosts = True  # those of a lab, beside the positions in the bridges

    def __init__(self, site: Site, name: str) -> None:
        self.site, self.name = site, name
        self.policy: Policy = derive(site, name)
        self._connection = connection(site, name)
        self._folder = Path(tempfile.mkdtemp(prefix="gatehouse-"))  # 0700; a socket's path is 108 bytes at most
        self._seen: dict[tuple[str, str], Observation] = {}
        self.memory = Memory()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    # the way there

    def ssh(self, *options: str, user: str | None = None, identity: bool = True) -> list[str]:
        """An SSH client's command line to this gateway, up to what is to be run there; `identity`: the site's key."""
        return positions.ssh(self._connection, *options, user=user, identity=identity)

    @property
    def administrator(self) -> str:
        """Whom the suite logs in as."""
        return str(self._connection["ssh_user"])

    @once
    def agent(self) -> Agent:
        """The agent with its positions; its connection carries the others, too."""
        shared = ("-o", "ControlMaster=yes", "-o", f"ControlPath={self._control}")
        return self._stack.enter_context(positions.agent(self.site, self.name, self.wanted_positions(), *shared))

    def wanted_positions(self) -> dict[str, dict[str, Any]]:
        """The positions to be taken, as the agent is told of them."""
        networks = self.site.gateways[self.name].networks
        bridges = positions.segments(self.site, self.name)
        if (exposed := self.exposed) is not None:
            bridges[CUT_OFF] = {**bridges[exposed], "hardware": CUT_OFF_HARDWARE}
        if listed := [device for profile in self.policy.profiles for device in profile.devices]:
            # As a device with a list of its own: of one segment's, the first that is not there itself.
            near = [d for d in listed if d.segment == listed[0].segment and d.hardware_address][:20]
            devices = [
                {"name": d.name, "hardware": d.hardware_address, "address": d.address and str(d.address)} for d in near
            ]
            bridges[LISTED] = {**bridges[listed[0].segment], "as": devices}
        for segment in bridges.keys() & networks.keys():
            if self.site.segments[segment].limits:
                bridges[f"{EAGER}{segment}"[:12]] = bridges[segment]
        return bridges

    @property
    def _control(self) -> Path:
        return self._folder / "ssh"

    @once
    def host(self) -> Host:
        """testinfra's view of the gateway, over the same connection."""
        _ = self.agent
        given = self._connection
        return testinfra.get_host(
            f"ssh://{given['ssh_user']}@{given['ssh_hostname']}:{given['ssh_port']}",
            sudo=given["_sudo"],
            ssh_extra_args=f"-o ControlPath={self._control} -o BatchMode=yes"
            f" -o UserKnownHostsFile={given['ssh_known_hosts_file']} -o StrictHostKeyChecking=yes",
            controlpersist=0,
        )

    def login(
        self, *options: str, user: str | None = None, identity: bool = True, run: str | None = "true"
    ) -> subprocess.CompletedProcess[str]:
        """Tries to log in anew and run something, and says how that went."""
        command = [*self.ssh(*options, user=user, identity=identity), *([run] if run else [])]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
        )

    def guess(self, user: str, passwords: Iterable[str]) -> str:
        """Tries passwords over one new connection: `let in`, `refused`, or what came in between."""
        given = self._connection
        try:
            with socket.create_connection((given["ssh_hostname"], given["ssh_port"]), 10) as wire:
                transport = paramiko.Transport(wire)
                try:
                    transport.start_client(timeout=10)
                    for password in passwords:
                        try:
                            transport.auth_password(user, password, fallback=False)
                            return "let in"
                        except paramiko.AuthenticationException:
                            continue
                    return "refused"
                finally:
                    transport.close()
        except (OSError, EOFError, paramiko.SSHException) as error:
            return f"{type(error).__name__}: {error}"

    def before_login(self, user: str) -> tuple[str, str]:
        """What a new connection is told without a login: the notice (empty for none), and the server's first line."""
        given = self._connection
        with socket.create_connection((given["ssh_hostname"], given["ssh_port"]), 10) as wire:
            transport = paramiko.Transport(wire)
            try:
                transport.start_client(timeout=10)
                with suppress(paramiko.AuthenticationException):
                    transport.auth_none(user)
                return (transport.get_banner() or b"").decode(), transport.remote_version
            finally:
                transport.close()

    @property
    def same_connection(self) -> tuple[str, str]:
        """Options for what shall go over the connection that is there."""
        return ("-o", f"ControlPath={self._control}")

    # positions

    @once
    def places(self) -> dict[str, Place]:
        """The positions that could be taken, by segment."""
        return {
            segment: Place(segment, tuple(found["addresses"]), tuple(a.partition("/")[0] for a in found["gateway"]))
            for segment, found in self.agent.positions.items()
            if "error" not in found and segment in self.site.segments
        }

    @property
    def exposed(self) -> str | None:
        """The segment where devices that talk to the broker are; None on a gateway without one of the two."""
        here = self.site.gateways[self.name].networks
        brokers = [o for o in expect.offers(self.site, self.name) if o.name == "mosquitto.mqtts"]
        return next((s for o in brokers for s in o.listener.reachable_from if s in here), None)

    @once
    def cut_off(self) -> Place:
        """Beside the position in `exposed`, one with the hardware address that is always in quarantine."""
        found = self.agent.positions.get(CUT_OFF, {"error": "this gateway has no broker for devices"})
        if "error" in found:
            raise ProbeError(f"{self.name}: no position in quarantine: {found['error']}")
        return Place(CUT_OFF, tuple(found["addresses"]), tuple(a.partition("/")[0] for a in found["gateway"]))

    def place(self, segment: str) -> Place:
        """The position in a segment. Raises `ProbeError` if it could not be taken."""
        if segment not in self.places:
            raise ProbeError(f"{self.name}: no position in {segment}: {self.agent.positions[segment]['error']}")
        return self.places[segment]

    @once
    def field(self) -> Field | None:
        """The separate hosts around the gateway: in a lab there are some."""
        return Field(self.site, self.name) if self.site.lab else None

    # what is seen from them

    def ask(self, work: Probes, patience: float = 180) -> dict[str, list[Observation]]:
        """Runs probes at positions of the agent, all at once; they are remembered by their ids."""
        asked = {position: list(probes) for position, probes in work.items() if probes}
        answers = self.agent.ask(asked, patience)
        found = {
            position: [Observation(position, p, r) for p, r in zip(asked[position], results, strict=True)]
            for position, results in answers.items()
        }
        self._remember(found)
        return found

    def _remember(self, found: Mapping[str, Iterable[Observation]]) -> None:
        for position, observations in found.items():
            for seen in observations:
                if "id" in seen.probe:
                    self._seen[position, seen.probe["id"]] = seen

    def seen(self, position: str, identity: str) -> Observation:
        """A probe that was made. Raises `ProbeError` if it was not: its position is missing."""
        try:
            return self._seen[position, identity]
        except KeyError:
            if position in self.agent.positions:
                self.place(position)
            raise ProbeError(f"{self.name}: {identity} was not asked from {position}") from None

    def was_seen(self, position: str, identity: str) -> Observation | None:
        """The same, or None."""
        return self._seen.get((position, identity))

    @once
    def labels(self) -> list[str]:
        """The ports that cross-segment probes use."""
        return expect.labels(self.site, self.name)

    @once
    def reach(self) -> dict[str, list[str]]:
        """Asks everything about who reaches whom; what the far side heard, by segment."""
        listeners = self.ask({segment: [{"kind": "listen", "ports": self.labels}] for segment in self.places})
        for segment, (answer,) in listeners.items():
            if answer.outcome != "listening":
                raise ProbeError(f"{self.name}: no listeners in {segment}: {answer.result.get('error')}")
        work = expect.gateway_work(self.site, self.name, self.places)
        for more in (
            expect.crossing_work(self.places, [*self.places, expect.GATEWAY], self.labels),
            self._outside_work(),
            callers(self),
        ):
            for position, probes in more.items():
                work.setdefault(position, []).extend(probes)
        self._be_patient(work)
        with ThreadPoolExecutor(2) as pool:
            hosts = pool.submit(self.field.ask, work, self.places) if self.field and self.asks_hosts else None
            self.ask(work)
            if hosts is not None:
                self._remember(hosts.result())
        self.ask(expect.spoof_work(self.policy, self.places, self.datagrams))
        heard = self.ask({segment: [{"kind": "heard"}] for segment in self.places})
        return {segment: answer.result["heard"] for segment, (answer,) in heard.items()}

    def _be_patient(self, work: dict[str, list[dict[str, Any]]]) -> None:
        """Has probes that the policy lets through wait longer: that costs nothing where the answer comes."""
        towards = {address: place.segment for place in self.places.values() for address in place.addresses}
        towards |= {address: segment for segment, _, address in self.outside}
        for position, probes in work.items():
            for probe in probes:
                kind, _, rest = probe["id"].partition(":")
                label, _, address = rest.partition("@")
                if kind != "across" or (":" in address and towards[address] == INTERNET):
                    continue
                if position == expect.GATEWAY or expect.permitted(
                    self.policy, position, towards[address], address, label
                ):
                    probe["timeout"] = PATIENT

    @property
    def datagrams(self) -> str:
        """The UDP port that forged datagrams go to."""
        return next(label for label in self.labels if label.endswith("/udp"))

    def _outside_work(self) -> dict[str, list[dict[str, Any]]]:
        """Named destinations, and in the lab the hosts around the gateway and other services on its internet."""
        targets = list(self.outside)
        work: dict[str, list[dict[str, Any]]] = {}
        for position in (*self.places, expect.GATEWAY):
            own = self.places.get(position)
            work[position] = [
                expect.outwards(position, label, address)
                for segment, label, address in targets
                if segment != position and (own is None or own.family(address))
            ]
        return work

    @once
    def outside(self) -> list[tuple[str, str, str]]:
        """Real hosts to be reached or not: `(segment, "443/tcp", address)`."""
        found = [
            ("internet", f"{destination.port}/{destination.transport}", str(network.network_address))
            for destination in self.site.destinations.values()
            for network in destination.addresses
            if network.num_addresses == 1
        ]
        return list(dict.fromkeys([*found, *(self.field.targets(self.labels) if self.field else [])]))

    def outside_of(self, position: str) -> list[Observation]:
        """What a position was asked of real hosts."""
        asked = {expect.across(label, address) for segment, label, address in self.outside if segment != position}
        return [seen for (where, identity), seen in self._seen.items() if where == position and identity in asked]

    def pairs(self, position: str, other: str) -> Iterator[tuple[Observation, Observation]]:
        """What two positions were both asked."""
        for (where, identity), seen in self._seen.items():
            if where == position and (theirs := self._seen.get((other, identity))) is not None:
                yield seen, theirs

    # scans

    @once
    def sockets(self) -> list[Socket]:
        """What listens on the gateway. Looked at twice: a question to a resolver has a socket for a moment."""
        return lasting(lambda: sockets(self._output(LISTENING)))

    @once
    def connections(self) -> list[Connection]:
        """What the gateway has a connection with. Looked at twice: what only the suite's own questions open is gone."""
        return lasting(lambda: connections(self._output(CONNECTED)))

    @once
    def scans(self) -> dict[tuple[str, str, str], Observation]:
        """Scans from every position at the same time. At the gateway's other addresses, of what listens at all: where
        nothing does, nothing can be open."""
        listening = {split(s.label)[0] for s in self.sockets if s.label.endswith("/tcp")}
        listening |= {split(label)[0] for label in self.labels if label.endswith("/tcp")}
        work = scans.work(self.policy, self.places, self.labels)
        for segment, place in self.places.items():
            others = [a for s, p in self.places.items() if s != segment for a in p.gateway if place.family(a)]
            asked = {"kind": "nmap", "transport": "tcp", "ports": sorted(listening)}
            work[segment] += [{"id": f"scan:listening@{a}", **asked, "address": a} for a in others]
        found = self.ask(work, patience=600)  # each scan twice at most, and a busy gateway takes its time
        return {(s, seen.probe["id"], seen.probe["address"]): seen for s, several in found.items() for seen in several}

    def scan(self, segment: str, what: str, address: str) -> Observation:
        """A scan from a segment: `tcp` (all ports), `udp` (common ones), or `listening` (what listens at all)."""
        self.place(segment)
        return self.scans[segment, f"scan:{what}@{address}", address]

    # what the gateway tells

    def run(self, *argv: str) -> Observation:
        """What a program on the gateway prints, run once in a session."""
        return self.memory.of(argv, lambda: self._run_again(argv))

    def _run_again(self, argv: tuple[str, ...]) -> Observation:
        """The same, run each time."""
        return self.ask({expect.GATEWAY: [{"kind": "run", "argv": list(argv)}]})[expect.GATEWAY][0]

    def _output(self, argv: tuple[str, ...]) -> str:
        return str(self._run_again(argv).result.get("output", ""))

    @once
    def keys(self) -> list[dict[str, str | None]]:
        """Every file with a private key on the gateway."""
        seen = self.ask({expect.GATEWAY: [{"kind": "keys"}]})[expect.GATEWAY][0]
        if seen.outcome != "answered":
            raise ProbeError(f"{self.name}: {seen}")
        found: list[dict[str, str | None]] = seen.result["keys"]
        return found

    @once
    def is_container(self) -> bool:
        """Whether clock and kernel belong to the machine underneath."""
        return self.run("systemd-detect-virt", "--container").result.get("status") == 0

    # identities

    @once
    def vault(self) -> Vault:
        return vaults.open_vault(self.site)

    @once
    def pki(self) -> Pki:
        return vaults.open_pki(self.site)

    @once
    def credentials(self) -> dict[str, Shown]:
        """What probes show to the broker."""
        return shown(self.vault, self.pki, self.site.name, self.site.domain)

    @property
    def last_revoked(self) -> list[str]:
        """The names of the credentials with the serial numbers that were revoked last."""
        return [name for name in self.credentials if name.startswith("last-")]

    # the broker

    @once
    def mqtts(self) -> Offer:
        """The broker's listener."""
        return next(o for o in expect.offers(self.site, self.name) if o.listener.name == "mqtts")

    @once
    def broker_at(self) -> list[tuple[str, str]]:
        """Where devices reach the broker: `(segment, address)`, the main one first."""
        return self.reached_at(self.mqtts.listener)

    def reached_at(self, listener: Listener) -> list[tuple[str, str]]:
        """Where a listener is reached: `(segment, address)`, in the order in which it names its segments."""
        reach = [segment for segment in listener.reachable_from if segment in self.places]
        return [(s, a) for s in reach for a in self.place(s).gateway if self.place(s).family(a)]

    def server(self, name: str, address: str, port: int) -> dict[str, Any]:
        """A server with a certificate of the site's PKI, as probes are told of it; `name` is the one in there."""
        return {"address": address, "port": port, "ca": self.pki.trust_anchor.decode(), "server_name": name}

    def broker_server(self, address: str) -> dict[str, Any]:
        """The broker's listener for devices at an address, as probes are told of it."""
        return self.server(broker_host(self.site), address, self.mqtts.listener.port)

    @once
    def programs(self) -> dict[str, Observation]:
        """Plays a program of the suite's own at each address where programs are declared; by `ID@ADDRESS`."""
        listener = self.site.listener("mosquitto", "passwords")
        found: dict[str, Observation] = {}
        secret = programs.password_of(self.pki.vault, programs.PROBE)
        for segment, address in self.reached_at(listener):
            server = self.server(broker_host(self.site), address, listener.port)
            probes = plays.programs(server, programs.user_name(programs.PROBE), secret, programs.PROBE)
            for seen in self.ask({segment: probes})[segment]:
                found[f"{seen.probe['id']}@{address}"] = seen
        return found

    @once
    def keyed(self) -> dict[str, Observation]:
        """Plays a device of the suite's own at each address where keys are declared; by `ID@ADDRESS`."""
        listener = self.site.listener("mosquitto", "psk")
        found: dict[str, Observation] = {}
        key = psk.probe_key(self.pki.vault).hex()
        for segment, address in self.reached_at(listener):
            here = {"address": address, "port": listener.port}
            probes = plays.keyed(here, {**here, "port": self.mqtts.listener.port}, psk.PROBE, key)
            for probe in probes:  # in turn: of two sessions with one name the broker ends the first
                (seen,) = self.ask({segment: [probe]})[segment]
                found[f"{probe['id']}@{address}"] = seen
        return found

    @once
    def broker(self) -> dict[str, Observation]:
        """Plays everything at the broker's main address, and one good session at each other; by the probes' ids."""
        if not self.broker_at:
            raise ProbeError(f"{self.name}: no position where the broker can be reached from")
        (segment, address), *others = self.broker_at
        server = self.broker_server(address)
        who = self.credentials
        probes = [plays.admission(case, server, who) for case in (*plays.REFUSED, *self.last_revoked)]
        probes += [play(server, who) for play in (plays.rights, plays.takeover, plays.pretence)]
        probes += [plays.excess(server, who, self.site.broker.max_packet_bytes)]
        probes += plays.handshakes(server, who, foreign_anchor(self.site.name, self.site.domain))
        found = {o.probe["id"]: o for o in self.ask({segment: probes})[segment]}
        for place, elsewhere in [(segment, address), *others]:
            good = {**plays.admission("good", {**server, "address": elsewhere}, who), "id": f"broker:good@{elsewhere}"}
            found |= {o.probe["id"]: o for o in self.ask({place: [good]})[place]}
        return found

    # the intake

    @once
    def intake(self) -> Taken:
        """Has the suite's device report, good and bad, and asks the database and the intake what became of it."""
        (segment, address), *_ = self.broker_at or [(None, None)]
        if segment is None:
            raise ProbeError(f"{self.name}: no position where the broker can be reached from")
        server = self.broker_server(address)
        target = Target(self.site, self.name, lambda: self.pki)
        keys = [probe_key(target, probe) for probe in (PROBE, OTHER_PROBE)]
        made = reports.made(keys[0], keys[1], time.time_ns() // 1_000_000, self.site.messages.json_form)
        before = self._intakes_numbers()
        play = plays.reports(server, self.credentials, made.messages)
        published = self.ask({segment: [play]})[segment][0]
        until = time.monotonic() + 20
        login = self.host.file(influxdb.credential(influxdb.DASHBOARDS))
        secret = login.content_string.strip() if login.exists else ""
        engine = self.site.database.engine
        question = database.question(self.site, self.pki, secret, PROBE, reports.FIELD, 10)
        while True:
            answered = self.ask({expect.GATEWAY: [question]})[expect.GATEWAY][0]
            after, values = self._intakes_numbers(), stored.answer(engine, answered.result)
            came = after.get("received_total", 0) - before.get("received_total", 0) >= len(made.messages)
            if (came and values and made.marks[reports.GOOD] in values) or time.monotonic() > until:
                return Taken(made, published, before, after, values)
            time.sleep(0.5)

    def _intakes_numbers(self) -> dict[str, float]:
        """Written once a second: a moment later they are of now."""
        time.sleep(1.5)
        seen = self.ask({expect.GATEWAY: [{"kind": "run", "argv": ["cat", METRICS]}]})[expect.GATEWAY][0]
        return reports.numbers(str(seen.result.get("output", "")))


@dataclass(frozen=True)
class Taken:
    """What was reported, how the broker took it, the intake's numbers before and after, and what is stored."""

    made: reports.Reports
    published: Observation
    before: dict[str, float]
    after: dict[str, float]
    values: list[str] | None

    def rise(self, name: str) -> float:
        """By how much a number has grown."""
        return self.after.get(name, 0) - self.before.get(name, 0)
