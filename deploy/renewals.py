"""Renews certificates over the devices' own channel: what they ask for at their brokers is signed here, and sent back.

A gateway at a time, reports first. Each step is safe to do again, and leaves a run that was killed to the next one:

    a device reports its new certificate    old ones revoked, broker's list replaced, registry forgets them
    a device asks                           registry notes the new certificate, then it is sent (retained)
    what was sent has arrived               it is taken from the broker
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType

from deploy import vaults
from deploy.devices import named, update_revoked, update_updates
from deploy.remote import Remote, RemoteError, connected
from gatehouse.errors import GatehouseError
from gatehouse.identity import Pki, renewal
from gatehouse.identity.names import KIT_PREFIX
from gatehouse.identity.renewal import Request
from gatehouse.site import Device, Site
from gatehouse.site.registry_writer import Registry
from roles.mosquitto import files as mosquitto
from roles.target import Target

CONTROL = f"{KIT_PREFIX}control"
"""Whom the broker lets read what devices ask, and write what they shall do."""

BATCH = 500
"""Devices whose messages are taken from a broker, or sent to it, in one go: 32 KiB each at most."""

SHOWN = 20
"""Names in a line of the summary."""


@dataclass
class Outcome:
    """Names of devices, and for `refused` and `away` a line each."""

    renewed: list[str] = field(default_factory=list)
    """A new certificate was signed and sent."""
    waiting: list[str] = field(default_factory=list)
    """A new certificate waits for them, since this run or an earlier one."""
    retired: list[str] = field(default_factory=list)
    """They use the new certificate; the old one is revoked, on their gateway too."""
    early: list[str] = field(default_factory=list)
    """They ask, and have more than a third of their certificate's life before them."""
    silent: list[str] = field(default_factory=list)
    """They are due, or were named, and have not asked."""
    refused: list[str] = field(default_factory=list)
    away: list[str] = field(default_factory=list)

    @property
    def succeeded(self) -> bool:
        """Whether nobody was refused, and every gateway was there."""
        return not (self.refused or self.away)

    def table(self) -> list[str]:
        """The summary for people."""
        lines = []
        for title, names in {
            "renewed": self.renewed,
            "waiting for the device": self.waiting,
            "old one retired": self.retired,
            "asked early, not due yet": self.early,
            "due, silent": self.silent,
        }.items():
            more = ", …" if len(names) > SHOWN else ""
            lines.append(f"{title:24} {len(names):5}  {', '.join(names[:SHOWN])}{more}".rstrip())
        lines += [f"refused: {line}" for line in self.refused]
        return lines + [f"not done: {line}" for line in self.away]


def renew(site: Site, names: Sequence[str]) -> Outcome:
    """Does what there is to do for the devices of a site: those that are due, or the named ones.

    Raises `DeviceError` for a name that is none, and what vault and registry raise: run again, it goes on from there.
    """
    named(site, names)  # refuses a name that is none
    outcome = Outcome()
    enrolled = [d for d in site.devices if d.serials and (d.name in names or not names)]
    outcome.refused += [f"{name}: is not enrolled yet" for name in names if name not in {d.name for d in enrolled}]
    if not enrolled:
        return outcome
    pki = vaults.open_pki(site)
    moving = {name for needing in pki.rollover("devices").dependents(enrolled).values() for name in needing}
    for gateway in dict.fromkeys(device.gateway for device in enrolled):
        mine = {device.name: device for device in enrolled if device.gateway == gateway}
        try:
            with connected(site, gateway) as remote:
                _Gateway(remote, Target(site, gateway, lambda: pki), outcome).renew(mine, names, moving)
        except RemoteError as error:
            outcome.away.append(f"{error} (run this again)")
    return outcome


class _Gateway:
    """One gateway's broker, and the devices behind it."""

    def __init__(self, remote: Remote, target: Target, outcome: Outcome) -> None:
        self._remote, self._target, self._outcome = remote, target, outcome
        self._pki: Pki = target.pki
        self._registry = Registry(vaults.registry_path(target.site))
        self._found: dict[str, bytes] = {}

    def renew(self, devices: Mapping[str, Device], named: Collection[str], moving: Collection[str]) -> None:
        """Reports, then requests, then what has arrived; `moving` have to leave a former authority, due or not."""
        topics = [topic(name) for name in devices for topic in _TOPICS]
        for some in _batches(topics, BATCH * len(_TOPICS)):
            self._found |= {topic: text.encode() for topic, text in self._exchange(look=some).items()}
        reported = self._retire(devices)
        entries = self._answer(devices, named, moving)
        self._settle(entries, reported)
        site = self._target.site
        now_known = tuple(entries.get(device.name, device) for device in site.devices)
        update_updates(self._remote, replace(self._target, site=site.model_copy(update={"devices": now_known})))
        asked = {name for name in devices if renewal.request_topic(name) in self._found}
        now = datetime.now(UTC)
        for name, device in entries.items():
            if device.status != "active":
                continue
            if len(device.serials) > 1:
                self._outcome.waiting.append(name)
            elif name not in asked and (name in named or name in moving or renewal.is_due(device, now)):
                self._outcome.silent.append(name)

    def _retire(self, devices: Mapping[str, Device]) -> dict[str, int]:
        """Makes the old certificates of devices that have moved worthless; returns what each device reported."""
        reported: dict[str, int] = {}
        with self._registry.transaction() as registry:
            retired: dict[str, renewal.Retirement] = {}
            for name, device in _as_now(devices, registry).items():
                topic = renewal.serial_topic(name)
                if device.status != "active" or topic not in self._found:
                    continue
                try:
                    _, reported[name] = renewal.read_serial(topic, self._found[topic])
                    retirement = renewal.moved(device, reported[name])
                except GatehouseError as error:
                    self._outcome.refused.append(str(error))
                    continue
                if retirement.revoke:
                    retired[name] = retirement
            if retired:
                self._pki.revoke_all([old for each in retired.values() for old in each.revoke], "superseded")
                update_revoked(self._remote, self._target)
                for name, retirement in retired.items():
                    registry.change(name, serials=list(retirement.serials))
        self._outcome.retired += retired
        return reported

    def _answer(
        self, devices: Mapping[str, Device], named: Collection[str], moving: Collection[str]
    ) -> dict[str, Device]:
        """Signs what is asked for, and sends it once the registry has it; returns the registry's entries."""
        answers: dict[str, renewal.Answer] = {}
        now = datetime.now(UTC)
        with self._registry.transaction() as registry:
            for name, device in _as_now(devices, registry).items():
                topic = renewal.request_topic(name)
                if topic not in self._found:
                    continue
                waiting = self._found.get(renewal.certificate_topic(name), b"")
                try:
                    request = renewal.read_request(topic, self._found[topic], self._pki, now)
                    wanted = name in named or name in moving or renewal.is_due(device, now)
                    if not wanted and _is_settled(device, request):
                        self._outcome.early.append(name)
                        continue
                    answer = renewal.answer(self._pki, request, device, waiting)
                except GatehouseError as error:
                    self._outcome.refused.append(str(error))
                    continue
                if answer is not None:
                    answers[name] = answer
                    if answer.facts is not None:
                        registry.change(name, **answer.facts)
        sent = {renewal.certificate_topic(name): each.chain_pem.decode() for name, each in answers.items()}
        self._put({topic: text for topic, text in sent.items() if text.encode() != self._found.get(topic)})
        self._found |= {topic: text.encode() for topic, text in sent.items()}
        self._outcome.renewed += [name for name, each in answers.items() if each.facts is not None]
        return _as_now(devices, self._registry)

    def _settle(self, devices: Mapping[str, Device], reported: Mapping[str, int]) -> None:
        """Takes from the broker what has arrived."""
        topics = {renewal.certificate_topic(name): device for name, device in devices.items()}
        self._put(
            {
                topic: ""
                for topic, device in topics.items()
                if topic in self._found and renewal.has_arrived(device, self._found[topic], reported.get(device.name))
            }
        )

    def _put(self, texts: Mapping[str, str]) -> None:
        for some in _batches(list(texts), BATCH):
            self._exchange(put={topic: texts[topic] for topic in some})

    def _exchange(self, look: Sequence[str] = (), put: Mapping[str, str] | None = None) -> dict[str, str]:
        return exchange(self._remote, self._target, look, put or {})


def exchange(
    remote: Remote, target: Target, look: Sequence[str] = (), put: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """What is retained on the topics of `look`, after `put` was put there (empty: taken away). Raises `RemoteError`."""
    credential = target.pki.ephemeral_client(CONTROL)
    port = target.site.listener("mosquitto", "mqtts").port
    request = {
        "chain": credential.chain_pem.decode(),
        "key": credential.private_key_pem.decode(),
        "listeners": [[address, port] for address in mosquitto.addresses(target)],
        "look": list(look),
        "put": dict(put),
    }
    found = json.loads(remote.run(mosquitto.EXCHANGE, json.dumps(request)))
    return {str(topic): str(text) for topic, text in found.items()}


_TOPICS = (renewal.serial_topic, renewal.request_topic, renewal.certificate_topic)


def _as_now(devices: Mapping[str, Device], registry: Registry) -> dict[str, Device]:
    """The devices as the registry has them now; another command may have changed or removed some."""
    return {
        name: Device.model_validate({**device.model_dump(), **registry.entries[name]})
        for name, device in devices.items()
        if name in registry.entries
    }


def _is_settled(device: Device, request: Request) -> bool:
    """Whether a device asks with its newest certificate: then nothing that was begun is to be finished."""
    return device.serials[:1] == (f"{request.current:x}",)


def _batches(items: Sequence[str], size: int) -> Iterable[Sequence[str]]:
    return (items[begin : begin + size] for begin in range(0, len(items), size))
