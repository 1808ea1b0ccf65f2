"""Replaces devices' HMAC keys over their own channel: each has two good keys until it signs with the new one.

    vault and registry             the gateway takes    the device is
    key N, registry N              N                    settled
    keys N and N+1, registry N     both                 sent N+1 (retained), and moves when it is there
    keys N and N+1, registry N+1   both                 seen to sign with N+1
    key N+1, registry N+1          N+1                  settled; what was sent is taken from the broker

Vault and registry are the journal: each step is safe to do again, and a run that was killed leaves it to the next one.
That a device has moved the intake's own notes say: of a message with the new key that was verified and stored.
"""

from __future__ import annotations

import json
import secrets
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from deploy import enrolment, vaults
from deploy.gateways import Gateways
from deploy.remote import Remote, RemoteError
from deploy.renewals import BATCH, exchange
from gatehouse.errors import GatehouseError
from gatehouse.identity import SecretStore
from gatehouse.identity.enrolment import hmac_secret
from gatehouse.identity.passwords import raw_key
from gatehouse.identity.rotation import RotationError
from gatehouse.messages import MessageError, sign
from gatehouse.messages.rekey import NONCE_BYTES, command_topic, wrap
from gatehouse.messages.state import fingerprint
from gatehouse.site import Device, Site
from gatehouse.site.registry_writer import Registry
from roles import intake as intake_role
from roles import rendering
from roles.intake import files as intake
from roles.target import Target

PATIENCE = 25.0  # seconds that devices have before the next run: some report every ten
POLL = 1.0
SETTLED = 2.0  # seconds without a message signed with the former key: the broker keeps a device's messages in order

# Reads the intake's notes: {device: {number: [fingerprint of the key, highest sequence number]}}.
_NOTED = """
import json, sqlite3, sys
notes = sqlite3.connect("file:/var/lib/gatehouse-intake/state.db?mode=ro", uri=True, timeout=10)
wanted, found = set(json.load(sys.stdin)), {}
for device, number, key, highest in notes.execute("SELECT device, number, key, highest FROM windows"):
    if device in wanted:
        found.setdefault(device, {})[number] = [key, highest]
json.dump(found, sys.stdout)
"""
_READS = f"reads() {{ sed -n 's/^gatehouse_intake_reloads_total //p' {intake.METRICS} 2>/dev/null || true; }}"
_HAS_READ = (
    'for i in $(seq 100); do [ "$(reads)" = "$read" ] || break; sleep 0.1; done;'
    ' [ "$(reads)" != "$read" ] || { echo "the intake does not read its keys again (does it run?)" >&2; exit 1; }'
)
# Verifies messages with the very file and code that the intake does: a reason of refusal for each, or "".
_VERIFY = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from gatehouse.messages import Refused, keyfile, verify
keys, said = keyfile.read(Path(sys.argv[2])), []
for topic, message in json.load(sys.stdin):
    try:
        verify(keys, topic, bytes.fromhex(message))
        said.append("")
    except Refused as refused:
        said.append(refused.reason)
json.dump(said, sys.stdout)
"""
Say = Callable[[str], None]


def names(site: Site, vault: SecretStore) -> dict[str, str]:
    """The devices that have a key, by the name of what is replaced: `devices/NAME/hmac`."""
    return {
        f"devices/{d.name}/hmac": d.name
        for d in site.devices
        if d.hmac_key is not None and d.status == "active" and hmac_secret(d.name, d.hmac_key) in vault
    }


def rotate(gateways: Gateways, devices: Sequence[str], say: Say) -> tuple[list[str], list[str], list[str]]:
    """Those that have moved, those that have not yet, and a line for each gateway that could not be asked.

    Raises `RotationError` where no intake takes their messages.
    """
    site = gateways.site
    known = {device.name: device for device in site.devices}
    there = set(gateways.running(intake_role.service.name))
    moved: list[str] = []
    failed: list[str] = []
    for gateway in dict.fromkeys(known[name].gateway for name in devices):
        mine = [known[name] for name in devices if known[name].gateway == gateway]
        if gateway not in there:
            failed.append(f"{gateway}: no intake takes the messages of {mine[0].name} (add the service, then harden)")
            continue
        try:
            moved += _Gateway(gateways.remote(gateway), gateways.target(gateway), say).rotate(mine)
        except (RemoteError, RotationError) as error:
            failed.append(f"{error} (run this again)")
    elsewhere = {d.name for d in known.values() if any(line.startswith(f"{d.gateway}:") for line in failed)}
    return moved, [name for name in devices if name not in moved and name not in elsewhere], failed


class _Gateway:
    def __init__(self, remote: Remote, target: Target, say: Say) -> None:
        self._remote, self._target, self._say = remote, target, say
        self._vault = target.pki.vault
        self._registry = Registry(vaults.registry_path(target.site))

    def rotate(self, devices: Sequence[Device]) -> list[str]:
        """The names of those that have moved."""
        numbers = self._numbers(devices)
        # Those that moved in a run that was killed are settled, and have had their new key.
        left = [name for name, used in numbers.items() if used > min(self._keys(name))]
        self._say(f"{self._remote.gateway}: {len(numbers) - len(left)} devices get a new key")
        wanted = [name for name in numbers if name not in left]
        self._make({name: numbers[name] for name in wanted})
        self._bring()
        self._send({name: numbers[name] for name in wanted})
        moved = self._wait({name: numbers[name] for name in wanted})
        self._retire({**{name: numbers[name] + 1 for name in moved}, **{name: numbers[name] for name in left}})
        return [*moved, *left]

    def _numbers(self, devices: Iterable[Device]) -> dict[str, int]:
        """The number of the key that each signs with, as the registry has it now."""
        entries = self._registry.read()
        return {d.name: int(entries[d.name]["hmac_key"]) for d in devices if "hmac_key" in entries.get(d.name, {})}

    def _keys(self, name: str) -> list[int]:
        prefix = f"devices/{name}/hmac/"
        return sorted(int(entry.removeprefix(prefix)) for entry in self._vault.names(prefix))

    def _make(self, used: Mapping[str, int]) -> None:
        """A key each, unless an earlier run has made it."""
        with self._vault.transaction():
            for name, number in used.items():
                if hmac_secret(name, number + 1) not in self._vault:
                    self._vault.set(hmac_secret(name, number + 1), raw_key().hex(), "hmac-key")

    def _bring(self) -> None:
        """The intake takes all that the vault has: it reads the file by itself within a second, and counts that."""
        file = intake.keys(self._target)
        script, stdin = rendering.swap([file], [file])
        self._remote.run(f"{_READS}; read=$(reads); {script}; {_HAS_READ}", stdin)

    def _key(self, name: str, number: int) -> bytes:
        return bytes.fromhex(self._vault.get_text(hmac_secret(name, number)))

    def _send(self, used: Mapping[str, int]) -> None:
        texts = {}
        for name, number in used.items():
            nonce = secrets.token_bytes(NONCE_BYTES)
            new = self._key(name, number + 1)
            texts[command_topic(name)] = wrap(self._key(name, number), name, (number + 1, number), new, nonce)
        self._put(texts)

    def _put(self, texts: Mapping[str, str]) -> None:
        topics = list(texts)
        for begin in range(0, len(topics), BATCH):
            exchange(self._remote, self._target, put={t: texts[t] for t in topics[begin : begin + BATCH]})

    def _wait(self, used: Mapping[str, int]) -> list[str]:
        """Those that the intake has seen with the new key, and no longer with the former one."""
        end = time.monotonic() + PATIENCE
        former: dict[str, tuple[int, float]] = {}
        while True:
            noted, now = self._noted(used), time.monotonic()
            for name, number in used.items():
                mine = noted.get(name, {})
                new = mine.get(str(number + 1), ["", 0])[0]
                if new == fingerprint(self._key(name, number + 1)):
                    highest = int(mine.get(str(number), ["", 0])[1])
                    if former.get(name, (None, 0.0))[0] != highest:
                        former[name] = highest, now
            moved = [name for name, (_, since) in former.items() if now - since >= SETTLED]
            if len(moved) == len(used) or now > end:
                return moved
            time.sleep(POLL)

    def _noted(self, devices: Iterable[str]) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self._remote.run(f"exec python3 -I -c {shlex.quote(_NOTED)}", json.dumps([*devices]))
        )
        return found

    def _retire(self, now: Mapping[str, int]) -> None:
        """The registry first, then the keys, then the gateway; then it is seen that the former ones are refused."""
        if not now:
            return
        with self._registry.transaction() as registry:
            for name, number in now.items():
                registry.change(name, hmac_key=number)
        former = {name: [n for n in self._keys(name) if n < number] for name, number in now.items()}
        shown = [self._shown(name, n) for name, numbers in former.items() for n in numbers]
        good = [self._shown(name, number) for name, number in now.items()]
        with self._vault.transaction():
            for name, numbers in former.items():
                for number in numbers:
                    self._vault.delete(hmac_secret(name, number))
        self._bring()
        self._prove(good, shown)
        self._put({command_topic(name): "" for name in now})
        place = enrolment.bundles_path(self._target.site)
        for name in now:
            if (place / name).exists():
                try:
                    enrolment.refresh(self._target.site, [name], (place / name / "nvs.bin").exists())
                except GatehouseError as error:
                    self._say(f"{error}; it has a new key, so that bundle is no longer good")

    def _shown(self, name: str, number: int) -> tuple[str, str]:
        topic, now = f"devices/{name}/telemetry/proof", time.time_ns()
        try:
            made = sign(
                self._key(name, number), topic, b"{}", number=number, sequence=now // 1000, time_ms=now // 1_000_000
            )
        except MessageError as error:
            raise RotationError(str(error)) from None
        return topic, made.hex()

    def _prove(self, good: Sequence[tuple[str, str]], former: Sequence[tuple[str, str]]) -> None:
        command = f"exec python3 -I -c {shlex.quote(_VERIFY)} {intake.LIBRARY} {intake.KEYS}"
        said = json.loads(self._remote.run(command, json.dumps([*good, *former])))
        if any(said[: len(good)]):
            raise RotationError(f"{self._remote.gateway}: a new key is not taken (run harden, then this again)")
        if "" in said[len(good) :]:
            raise RotationError(f"{self._remote.gateway}: a former key is still taken (run harden, then this again)")
