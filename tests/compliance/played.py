"""What is played at a gateway: devices and programs at the broker, reports to the intake."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from deploy import vaults
from gatehouse.identity import Pki, Vault, programs, psk
from gatehouse.identity.pins import broker_host
from gatehouse.proof import expect, plays, reports, stored
from gatehouse.proof.channel import ProbeError
from gatehouse.proof.credentials import OTHER_PROBE, PROBE, Shown, foreign_anchor, shown
from gatehouse.proof.expect import Offer
from gatehouse.proof.observation import Observation
from gatehouse.site import Listener
from roles import influxdb
from roles.intake.files import METRICS, probe_key
from roles.target import Target
from tests import database
from tests.compliance.looks import Looks
from tests.compliance.once import once


class Played(Looks):
    """One gateway, whose services are used and misused."""

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
