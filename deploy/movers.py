"""How each secret of a site is replaced: what a rotation (`gatehouse.identity.rotation`) needs to know of it.

A family says which secrets there are and returns a mover for each; `FAMILIES` is all that a new kind is added to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from cryptography import x509

from deploy import enrolment
from deploy.devices import bring, update_broker, update_revoked
from deploy.gateways import Gateways, probed
from deploy.remote import Remote
from gatehouse.identity import SecretStore, programs, psk, rotation
from gatehouse.identity.authority import key_to_pem, new_key
from gatehouse.identity.passwords import password
from gatehouse.identity.pins import broker_host
from gatehouse.identity.rotation import Phase, RotationError
from gatehouse.site import Device, Service
from roles import alerts as alerts_role
from roles import coap as coap_role
from roles import grafana as grafana_role
from roles import influxdb, rendering
from roles import intake as intake_role
from roles import mosquitto as broker
from roles.alerts import WEBHOOK_SECRET
from roles.alerts import files as alerts
from roles.coap import files as coap
from roles.facts import LOADED
from roles.grafana import files as grafana
from roles.influxdb import deploy as database
from roles.intake import files as intake
from roles.mosquitto import files as mosquitto
from roles.target import Target


class Mover:
    """What most of them do; see `rotation.Mover`. `where` are the gateways that have to follow."""

    kind = "password"
    first: Phase = "install"
    handover = ""
    """How its owner gets the new one, where the kit can't bring it."""

    def __init__(self, name: str, gateways: Gateways, where: list[str]) -> None:
        self.name, self.gateways, self.where = name, gateways, where
        self.vault: SecretStore = gateways.pki.vault

    interrupts = False
    """Whether something is away for a moment."""

    @property
    def asked_for(self) -> bool:
        """Whether it is only replaced when it is named: it interrupts, or its owner has to be given it by hand."""
        return self.interrupts or self.first == "retire"

    def check(self) -> None:
        """Before anything is begun: is it there, are all gateways."""
        if self.name not in self.vault:
            raise RotationError("there is none yet (run harden first)")
        for name in self.where:
            self.gateways.remote(name)

    def make(self, used: bytes) -> bytes:
        """A password."""
        return password().encode()

    def keep(self) -> bytes:
        """The value."""
        return self.vault.get(self.name)

    def replaced(self, vault: SecretStore) -> None:
        """Nothing hangs on it."""

    def retired(self, vault: SecretStore, former: bytes) -> None:
        """Nothing hangs on it."""

    def apply(self) -> None:
        """Each gateway."""
        for name in self.where:
            self.bring(self.gateways.remote(name), self.gateways.target(name))

    def bring(self, remote: Remote, target: Target) -> None:
        """Makes one gateway as the vault says."""
        raise NotImplementedError

    def prove(self, new: bytes, former: bytes | None) -> None:
        """At each gateway."""
        for name in self.where:
            remote, target = self.gateways.remote(name), self.gateways.target(name)
            if not self.takes(remote, target, new):
                raise RotationError(f"{name}: {self.name}: the new one is not taken (run harden, then this again)")
            if former is not None and self.takes(remote, target, former):
                raise RotationError(f"{name}: {self.name}: the former one is still taken (run harden, then this again)")

    def takes(self, remote: Remote, target: Target, value: bytes) -> bool:
        """Whether one gateway takes a value."""
        raise NotImplementedError


class DatabaseLogin(Mover):
    """An account of the database: two users take turns (1.x); a token beside the other, an administrator that knows
    both passwords (2.x)."""

    _STEWARD = database.STEWARD
    _OLD = "its steward is older than this kit, or not there (run harden first)"

    def __init__(self, account: str, gateways: Gateways) -> None:
        super().__init__(influxdb.secret_name(account), gateways, gateways.running(influxdb.service.name))
        self.account = account
        self._two = gateways.site.database.engine == "influxdb2"
        self.first = "move" if self._two else "install"

    def make(self, used: bytes) -> bytes:
        """`USER:PASSWORD`, the other user's; 2.x has one administrator, and tokens."""
        new = password()
        return (new if self._two else f"{influxdb.other_user(self.account, used.decode())}:{new}").encode()

    def check(self) -> None:
        """Also whether what runs there can do it."""
        super().check()
        for name in self.where:
            self.gateways.remote(name).run(f"[ -e {self._STEWARD}/tokens.py ] || {{ echo '{self._OLD}' >&2; exit 1; }}")

    def bring(self, remote: Remote, target: Target) -> None:
        """Its settings, and what follows from them."""
        port = target.site.listener(influxdb.service.name, "https").port
        settings = database.settings(target, port)
        script, stdin = rendering.swap([settings], [settings])
        remote.run(f"{script}; python3 -B {self._STEWARD} settle", stdin)
        if self.account == influxdb.DASHBOARDS:
            remote.run(*grafana.follow(target))

    def takes(self, remote: Remote, target: Target, value: bytes) -> bool:
        """As the database says to who shows it."""
        return remote.run(f"exec python3 -B {self._STEWARD} tries {self.account}", value.decode()).strip() == "taken"


class BrokerClient(Mover):
    """The key of one of the kit's own clients at the broker: any of the site's certificates is taken beside another
    until it is revoked."""

    kind = "private-key"
    first: Phase = "move"

    def __init__(self, service: Service, gateways: Gateways) -> None:
        super().__init__(f"client/{service.user}/key", gateways, gateways.running(service.name))
        self._certificate = f"client/{service.user}/certificate"

    def make(self, used: bytes) -> bytes:
        """A key; its certificate is issued when it is brought."""
        return key_to_pem(new_key())

    def keep(self) -> bytes:
        """Certificate and key."""
        return self.vault.get(self._certificate) + self.vault.get(self.name)

    def replaced(self, vault: SecretStore) -> None:
        """The certificate is for the key."""
        vault.delete(self._certificate)

    def retired(self, vault: SecretStore, former: bytes) -> None:
        """Its certificate is revoked."""
        self.gateways.pki.revoke_all([x509.load_pem_x509_certificate(former).serial_number], "superseded")

    def apply(self) -> None:
        """Those who show it; when the former is retired, every broker: certificates are good at all of them."""
        super().apply()
        if rotation.phase_of(self.vault, self.name) == "retire":
            for remote, target in self.gateways.of(broker.service.name):
                update_revoked(remote, target)

    def takes(self, remote: Remote, target: Target, value: bytes) -> bool:
        """As the broker says to who shows it."""
        text = (self.keep() if value == self.vault.get(self.name) else value).decode()
        return _accepts(remote, target, "mqtts", {"chain": text, "key": text})


def _restarted(remote: Remote, file: rendering.File, unit: str, connected: str, otherwise: str) -> None:
    """Puts a file in its place and starts a unit with it, unless it runs on that already; it must then be connected."""
    script, stdin = rendering.swap([file], [file])
    runs = f"systemctl is-active --quiet {unit} && sha256sum --check --status {LOADED}/{unit}"
    restart = f"{{ {runs} || systemctl restart {unit}; }} && {connected}"
    remote.run(f"{script}; {restart} || {{ echo '{otherwise}' >&2; exit 1; }}", stdin)


class IntakeClient(BrokerClient):
    """The intake's."""

    def __init__(self, gateways: Gateways) -> None:
        super().__init__(intake_role.service, gateways)

    def bring(self, remote: Remote, target: Target) -> None:
        """A start with the new one, unless it runs on that already; what comes meanwhile waits at the broker."""
        file = next(each for each in intake.configuration(target) if each.path == intake.CLIENT)
        _restarted(remote, file, intake.UNIT, intake.CONNECTED, "the intake is not connected to the broker")

    def takes(self, remote: Remote, target: Target, value: bytes) -> bool:
        """For the one in use: the intake is connected. For another: what the broker says to it."""
        if value == self.vault.get(self.name):
            return remote.run(f"{intake.CONNECTED} && echo connected || true").strip() == "connected"
        return super().takes(remote, target, value)


class CoapClient(BrokerClient):
    """The CoAP endpoint's."""

    def __init__(self, gateways: Gateways) -> None:
        super().__init__(coap_role.service, gateways)

    def bring(self, remote: Remote, target: Target) -> None:
        """A start with the new one, unless it runs on that already; devices shake hands anew."""
        file = next(each for each in coap.configuration(target) if each.path == coap.CLIENT)
        _restarted(remote, file, coap.UNIT, coap.CONNECTED, "CoAP: not connected to the broker")


class AlertsClient(BrokerClient):
    """The alerts'."""

    def __init__(self, gateways: Gateways) -> None:
        super().__init__(alerts_role.service, gateways)

    def bring(self, remote: Remote, target: Target) -> None:
        """Each look at the numbers reads it anew."""
        file = next(each for each in alerts.configuration(target) if each.path == alerts.CLIENT)
        remote.run(*rendering.swap([file], [file]))


class WebhookSecret(Mover):
    """What alerts to the webhook are signed with. There is one at a time: its receiver is given the new one."""

    first: Phase = "retire"
    handover = f"whoever takes the alerts verifies them with what `./kit vault.show --name {WEBHOOK_SECRET}` prints"

    def __init__(self, gateways: Gateways) -> None:
        super().__init__(WEBHOOK_SECRET, gateways, gateways.running(alerts_role.service.name))

    def bring(self, remote: Remote, target: Target) -> None:
        """Each look at the numbers reads it anew."""
        file = next(each for each in alerts.configuration(target) if each.path == alerts.SECRET)
        remote.run(*rendering.swap([file], [file]))

    def takes(self, remote: Remote, target: Target, value: bytes) -> bool:
        """As it is on the gateway: what the receiver says to it, only the receiver knows."""
        return remote.run(f"cmp -s - {alerts.SECRET} && echo taken || true", value.decode()).strip() == "taken"


class ProgramPassword(Mover):
    """A program's password at the broker. There is one at a time: the program is given the new one by its owner."""

    first: Phase = "retire"

    def __init__(self, program: str, gateways: Gateways) -> None:
        where = [n for n in gateways.running(broker.service.name) if mosquitto.passwords(gateways.target(n))]
        super().__init__(programs.secret_name(program), gateways, where)
        self._program = program
        self.handover = f"{programs.user_name(program)} logs in with what `./kit vault.show --name {self.name}` prints"

    def check(self) -> None:
        """One that no deploy has brought anywhere yet is made now."""
        programs.password_of(self.vault, self._program)
        super().check()

    def replaced(self, vault: SecretStore) -> None:
        """A new salt, and with it another hash."""
        programs.forget_salt(vault, self._program)
        programs.password_file(vault, [self._program])

    def bring(self, remote: Remote, target: Target) -> None:
        """The broker reads its passwords again, and ends the sessions of former ones."""
        update_broker(remote, target)

    def takes(self, remote: Remote, target: Target, value: bytes) -> bool:
        """As the broker says to who shows it."""
        shown = {"username": programs.user_name(self._program), "password": value.decode()}
        return _accepts(remote, target, "passwords", shown)


class DashboardsPassword(Mover):
    """The dashboards' administrator has one password; the operator finds the new one in the vault from then on."""

    first: Phase = "retire"
    asked_for = False
    handover = f"`./kit vault.show --name {grafana_role.PASSWORD}` prints what the login page takes"
    _MISSING = "the dashboards are not deployed there (run harden first)"

    def __init__(self, gateways: Gateways) -> None:
        super().__init__(grafana_role.PASSWORD, gateways, gateways.running(grafana_role.service.name))

    def check(self) -> None:
        """Also whether they are there."""
        super().check()
        for name in self.where:
            self.gateways.remote(name).run(f"[ -e {grafana.STEWARD} ] || {{ echo '{self._MISSING}' >&2; exit 1; }}")

    def bring(self, remote: Remote, target: Target) -> None:
        """Its file, and what the steward makes of it."""
        file = grafana.secret_file(target, self.name)
        script, stdin = rendering.swap([file], [file])
        remote.run(f"{script}; python3 -I {grafana.STEWARD} settle", stdin)

    def takes(self, remote: Remote, target: Target, value: bytes) -> bool:
        """As the login page says to who types it."""
        return remote.run(f"exec python3 -I {grafana.STEWARD} tries", value.decode()).strip() == "taken"


class PreSharedKey(Mover):
    """A device's key at the broker. There is one at a time: the device is flashed with the new one."""

    kind = psk.KIND
    first: Phase = "retire"

    def __init__(self, device: Device, gateways: Gateways) -> None:
        super().__init__(psk.secret_name(device.name), gateways, [device.gateway])
        self._device = device
        self.handover = f"flash {device.name} with its bundle"

    def make(self, used: bytes) -> bytes:
        """32 bytes in hexadecimal."""
        return psk.new_key().hex().encode()

    def apply(self) -> None:
        """Its bundle first: what it is flashed with."""
        place = enrolment.bundles_path(self.gateways.site) / self._device.name
        if place.exists():
            enrolment.refresh(self.gateways.site, [self._device.name], (place / "nvs.bin").exists())
        super().apply()

    def bring(self, remote: Remote, target: Target) -> None:
        """The broker reads its keys again; the session of the former one ends."""
        bring(remote, target, [self._device])

    def takes(self, remote: Remote, target: Target, value: bytes) -> bool:
        """As the broker says to who shows it."""
        return _accepts(remote, target, "psk", {"identity": self._device.name, "psk": value.decode()})


def _accepts(remote: Remote, target: Target, listener: str, shown: dict[str, str]) -> bool:
    """Whether the broker lets in who shows this; asked on the gateway, at an address of its own."""
    service = broker.service.name
    probe: dict[str, Any] = {
        "kind": "mqtt",
        "address": target.listens_on(service, listener)[0],
        "port": target.site.listener(service, listener).port,
        "credentials": {"given": shown},
        "steps": [{"do": "connect", "as": "client", "with": "given", "client_id": ""}],
    }
    if listener != "psk":
        probe |= {"ca": target.pki.trust_anchor.decode(), "server_name": broker_host(target.site)}
    found = probed(remote, probe)
    outcome = found["steps"][0]["outcome"] if found.get("steps") else found.get("error", "no word")
    if outcome not in ("accepted", "denied", "alert", "cut", "ended"):
        raise RotationError(f"{remote.gateway}: the broker's {listener}: {json.dumps(found)[:200]}")
    return bool(outcome == "accepted")


def _database(gateways: Gateways) -> Iterator[Mover]:
    if gateways.running(influxdb.service.name):
        yield from (DatabaseLogin(account, gateways) for account in influxdb.ACCOUNTS)


def _dashboards(gateways: Gateways) -> Iterator[Mover]:
    wanted = gateways.site.dashboards
    if (wanted.package or wanted.repository) and gateways.running(grafana_role.service.name):
        yield DashboardsPassword(gateways)


def _intake(gateways: Gateways) -> Iterator[Mover]:
    if gateways.running(intake_role.service.name):
        yield IntakeClient(gateways)


def _coap(gateways: Gateways) -> Iterator[Mover]:
    if gateways.running(coap_role.service.name):
        yield CoapClient(gateways)


def _alerts(gateways: Gateways) -> Iterator[Mover]:
    wanted = gateways.site.alerts
    if wanted and gateways.running(alerts_role.service.name):
        yield from [AlertsClient(gateways)] * wanted.mqtt
        yield from [WebhookSecret(gateways)] * bool(wanted.webhook)


def _programs(gateways: Gateways) -> Iterator[Mover]:
    yield from (ProgramPassword(program, gateways) for program in gateways.site.programs)


def _keyed(gateways: Gateways) -> Iterator[Mover]:
    for device in gateways.site.devices:
        if device.authentication == "psk" and device.enrolled and device.status != "revoked":
            yield PreSharedKey(device, gateways)


FAMILIES: tuple[Callable[[Gateways], Iterator[Mover]], ...] = (
    _database,
    _dashboards,
    _intake,
    _coap,
    _alerts,
    _programs,
    _keyed,
)
"""In the order in which they are replaced."""


def movers(gateways: Gateways) -> dict[str, Mover]:
    """All secrets of the site that can be replaced one by one, by their names in the vault."""
    return {mover.name: mover for family in FAMILIES for mover in family(gateways)}
