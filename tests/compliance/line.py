"""The way to a gateway: one SSH connection, positions in its segments, and probes that are sent from them."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import paramiko

from deploy import positions
from deploy.inventory import connection
from gatehouse.proof import expect
from gatehouse.proof.channel import Agent, ProbeError
from gatehouse.proof.credentials import CUT_OFF_HARDWARE
from gatehouse.proof.expect import Place
from gatehouse.proof.observation import Observation
from gatehouse.site import Policy, Site, derive
from tests.compliance.field import Field
from tests.compliance.once import Memory, once

# The position of a device in quarantine: no segment can have that name.
CUT_OFF = "cut-off"
# That of a device with destinations of its own, and those of hosts that want too much, one a segment.
LISTED = "listed"
EAGER = "eager-"

Probes = Mapping[str, Iterable[Mapping[str, Any]]]


class Line:
    """The way to one gateway: everything is done when it is first asked for, and once."""

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

    def login(
        self, *options: str, user: str | None = None, identity: bool = True, run: str | None = "true"
    ) -> subprocess.CompletedProcess[str]:
        """Tries to log in anew and run something, and says how that went."""
        command = [*self.ssh(*options, user=user, identity=identity), *([run] if run else [])]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
        )

    def login_at_last(self) -> subprocess.CompletedProcess[str]:
        """The administrator's login, more than once: OpenSSH 9.8 and later shuts out who guesses, for a moment."""
        for _ in range(20):
            done = self.login(user=self.site.ssh.user)
            if done.returncode == 0:
                break
            time.sleep(2)
        return done

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

    def tries(self, user: str, number: int) -> tuple[int, bool]:
        """Shows so many new keys over one new connection: how many were answered, and whether it was ended then."""
        given = self._connection
        with socket.create_connection((given["ssh_hostname"], given["ssh_port"]), 10) as wire:
            transport = paramiko.Transport(wire)
            try:
                transport.start_client(timeout=10)
                for answered in range(number):
                    try:
                        transport.auth_publickey(user, paramiko.ECDSAKey.generate())
                    except paramiko.AuthenticationException as error:
                        if not transport.is_active() or "Too many" in str(error):
                            return answered, True
                    except (paramiko.SSHException, EOFError, OSError):
                        return answered, True
                return number, False
            finally:
                transport.close()

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
