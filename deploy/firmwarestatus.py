"""Who runs which firmware, who failed and who is silent; and the end of a roll-out of which too many fail.

One question to each gateway: what it offers, what its devices reported (signed, as the intake has verified and stored
it), and the time there.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from deploy import publishing, vaults
from deploy.asking import at_once
from deploy.remote import RemoteError, connected
from gatehouse.columns import aligned
from gatehouse.errors import GatehouseError
from gatehouse.site import Site, seconds
from gatehouse.updates import manifest as manifests
from gatehouse.updates import rollout
from gatehouse.updates.keys import trusted_keys
from gatehouse.updates.manifest import Manifest, ManifestError
from gatehouse.updates.rollout import Limits, Progress, Standing
from gatehouse.updates.signing import known_keys
from roles.influxdb.deploy import STEWARD

PATIENCE = 30.0
"""Seconds for all gateways together."""
_SKEW = 300
"""Seconds that a clock may differ before it is told."""
ALL_WELL, FAILED, TO_LOOK_AT = 0, 1, 2
"""Exit statuses: all as it should be; something could not be asked or done; a device or a roll-out needs a look."""


@dataclass(frozen=True)
class Answer:
    """What a gateway said: its time, the manifests that it offers of each model, the last report of each device."""

    now: float
    offers: Mapping[str, Sequence[Manifest]]
    reports: Mapping[str, Any]
    notes: Sequence[str] = ()


@dataclass
class Overview:
    """The whole: devices, roll-outs, what could not be found out, and what was halted."""

    standings: list[Standing]
    rollouts: list[Progress]
    notes: list[str]
    halted: list[str] = field(default_factory=list)
    unknown: bool = False

    @property
    def status(self) -> int:
        """The exit status."""
        if self.unknown:
            return FAILED
        return TO_LOOK_AT if self.halted or any(each.state in rollout.NOTED for each in self.standings) else ALL_WELL


def look(site: Site, halt: bool = True) -> Overview:
    """Ask, judge, and halt what too many fail of, unless it shall only be looked at. Raises `PublishingError`."""
    gateways = publishing.servers(site)
    keys, lacking = _keys(site)
    answers, reasons = at_once(gateways, lambda gateway: _ask(site, gateway, keys), PATIENCE)
    limits = _limits(site)
    standings: list[Standing] = []
    notes = [*lacking, *(f"{why}: what its devices run is unknown" for why in reasons.values())]
    for gateway, answer in answers.items():
        now, skewed = _moment(site, gateway, answer)
        notes += [*(f"{gateway}: {note}" for note in answer.notes), *skewed]
        standings += [
            rollout.standing(
                device.name, device.model, gateway, answer.offers.get(device.model, ()),
                answer.reports.get(device.name), now, limits,
            )
            for device in sorted(site.devices_of(gateway), key=lambda device: device.name)
            if device.status == "active" and device.serials and manifests.is_model(device.model)
        ]  # fmt: skip
    unknown = bool(reasons) or any(answer.notes for answer in answers.values())
    result = Overview(standings, _progress(answers, standings), notes, unknown=unknown)
    if halt:
        _halt(site, result, limits, answers)
    return result


def _limits(site: Site) -> Limits:
    wanted = site.firmware
    return Limits(wanted.halt_above_percent / 100, wanted.halt_from, seconds(wanted.silent_after))


def _progress(answers: Mapping[str, Answer], standings: Sequence[Standing]) -> list[Progress]:
    """A roll-out is one, whatever the number of gateways that offer it; where they differ, each is shown."""
    releases: dict[tuple[str, int, bytes, int], Manifest] = {}
    for answer in answers.values():
        for model, offered in answer.offers.items():
            if offered:
                newest = offered[0]
                releases.setdefault((model, newest.counter, newest.sha256, newest.share), newest)
    return [rollout.progress(key[0], release, standings) for key, release in sorted(releases.items())]


def _halt(site: Site, result: Overview, limits: Limits, answers: Mapping[str, Answer]) -> None:
    for each in result.rollouts:
        if each.halted or not each.too_many(limits):
            continue
        giving = [name for name, answer in answers.items() if _gives(answer.offers.get(each.model, ()), each.release)]
        try:
            for line in publishing.halt(site, each.model, each.release.version, giving):
                result.halted.append(line)
        except GatehouseError as error:
            result.notes.append(str(error))
            result.unknown = True


def _gives(offered: Sequence[Manifest], release: Manifest) -> bool:
    return bool(offered) and offered[0].counter == release.counter and offered[0].share > 0


def _moment(site: Site, gateway: str, answer: Answer) -> tuple[float, list[str]]:
    """The time to judge by, and what is wrong with the clocks."""
    reported = [said for each in answer.reports.values() if (said := rollout.read_report(each))]
    latest = max((said.time for said in reported), default=0.0)
    notes = []
    if latest > answer.now + site.messages.max_ahead_seconds:
        notes.append(
            f"{gateway}: its clock shows {_shown(answer.now)}, and devices have reported at {_shown(latest)}:"
            " it was set back (look at `chronyc tracking` there)"
        )
    elif abs(answer.now - time.time()) > _SKEW:
        notes.append(f"{gateway}: its clock shows {_shown(answer.now)}, this machine's {_shown(time.time())}: set one")
    return max(answer.now, latest), notes


def _keys(site: Site) -> tuple[Mapping[str, tuple[bytes, ...]] | None, list[str]]:
    """Of each model the keys that its manifests may be signed by; None, and why, where the vault doesn't open here."""
    try:
        vault = vaults.open_vault(site)
        models = {device.model for device in site.devices if manifests.is_model(device.model)}
        return {model: (*trusted_keys(vault), *known_keys(vault, model)) for model in models}, []
    except GatehouseError as error:
        return None, [f"{error}: whether this site has signed what is published is unknown"]


def _script() -> str:
    """Prints the time, what is published, and what the devices reported, or why that is not known."""
    return (
        f"date +%s; ({publishing.listing()});"
        f" if [ ! -e {STEWARD}/__main__.py ]; then echo ': there is no database on it';"
        f' elif said=$(python3 -B {STEWARD} firmware 2>&1); then echo "= $said";'
        ' else echo ": $(echo "$said" | tail -n 1)"; fi'
    )


def _ask(site: Site, gateway: str, keys: Mapping[str, Sequence[bytes]] | None) -> Answer:
    with connected(site, gateway) as remote:
        first, *lines = remote.run(_script()).splitlines() or [""]
    notes: list[str] = []
    reports: Mapping[str, Any] = {}
    offered: dict[str, list[Manifest]] = {}
    try:
        now = int(first)
        for line in lines[:-1]:
            model, entries, _ = publishing.offers(line)
            offered[model] = [read for data in entries if (read := _read(data, keys and keys.get(model, ())))]
            if len(offered[model]) != len(entries) or not entries:
                notes.append(f"{model}: what is published is not what this site has signed; publish it again")
        word, _, rest = lines[-1].partition(" ")
        if word == "=":
            reports = dict(json.loads(rest))
        else:
            notes.append(f"what its devices reported is unknown ({rest.removeprefix('database: ')})")
    except (ValueError, TypeError, IndexError):
        raise RemoteError(f"{gateway}: its answer is not understood (`./kit harden` brings it up to date)") from None
    return Answer(now, offered, reports, notes)


def _read(data: bytes, keys: Sequence[bytes] | None) -> Manifest | None:
    """A manifest by one of the site's keys, where those are known: what others put in its place counts for nothing."""
    try:
        found = manifests.read(data)
    except ManifestError:
        return None
    return found if keys is None or any(manifests.is_signed_by(data, key) for key in keys) else None


def table(seen: Overview) -> Iterator[str]:
    """The roll-outs, then a line a device, as text."""
    if not seen.rollouts:
        yield "nothing published"
    for each in seen.rollouts:
        release = each.release
        states = ", ".join(f"{each.counts[state]} {state}" for state in rollout.STATES if each.counts.get(state))
        share = "halted, for none" if each.halted else f"for {release.share / 100:g} %"
        about = f"{each.model} {release.version} (counter {release.counter}), {share} of the devices"
        yield f"{about}: {states or 'there is none'}"
    for model in sorted({each.model for each in seen.standings}):
        versions = Counter(each.report.version for each in seen.standings if each.model == model and each.report)
        if versions:
            yield f"{model} runs: " + ", ".join(f"{version} on {count}" for version, count in sorted(versions.items()))
    if seen.standings:
        yield ""
        yield from aligned(
            [["NAME", "MODEL", "RUNS", "COUNTER", "STATE", "REPORTED", "UPDATE"], *map(_row, seen.standings)]
        )
    yield from seen.halted


def _row(each: Standing) -> list[str]:
    said = each.report
    if said is None:
        return [each.name, each.model, "-", "-", each.state, "-", "-"]
    return [each.name, each.model, said.version, str(said.counter), each.state, _shown(said.time), said.update or "-"]


def _shown(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"


def document(seen: Overview) -> dict[str, Any]:
    """The same as plain values for `--json`; moments in ISO 8601."""
    return {
        "rollouts": [
            {
                "model": each.model,
                "version": each.release.version,
                "counter": each.release.counter,
                "share_percent": each.release.share / 100,
                "halted": each.halted,
                "harmed": each.harmed,
                "tried": each.tried,
                "devices": {state: each.counts.get(state, 0) for state in rollout.STATES},
            }
            for each in seen.rollouts
        ],
        "devices": [
            {
                "name": each.name,
                "model": each.model,
                "gateway": each.gateway,
                "state": each.state,
                "in_the_share": each.turn,
                "version": each.report and each.report.version,
                "counter": each.report and each.report.counter,
                "update": each.report and each.report.update,
                "reported": each.report and datetime.fromtimestamp(each.report.time, UTC).isoformat(timespec="seconds"),
            }
            for each in seen.standings
        ],
        "halted": seen.halted,
        "notes": seen.notes,
    }
