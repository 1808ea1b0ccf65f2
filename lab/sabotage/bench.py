"""The gateway of a lab on the bench: broken, judged by the compliance suite, repaired."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import lab
from deploy import enrolment, vaults
from deploy import run as deploying
from deploy.inventory import ROOT
from gatehouse.errors import GatehouseError
from gatehouse.identity.files import write_private
from gatehouse.proof import results
from gatehouse.proof.credentials import newest_revoked
from gatehouse.site import Site
from gatehouse.updates.keys import FirmwareKeys
from lab import firmware
from lab.errors import LabError
from lab.sabotage.catalogue import SABOTAGES
from lab.sabotage.judge import Checks, Outcome, changed, judged
from lab.sabotage.model import Sabotage
from lab.sabotage.surroundings import preamble

TOOLS = Path(__file__).with_name("tools.sh")
SUITE_SECONDS = 600
BREAK_SECONDS = 60

Say = Callable[[str], None]
T = TypeVar("T")


class SabotageError(GatehouseError):
    """A gateway that can't be sabotaged."""


class Bench:
    """The lab's gateway while it is broken and repaired; repaired whenever the block is left, whatever happened.

    `passing` is what did not reach its end at first and did when it was asked once more, a line each.
    """

    def __init__(self, site: Site, say: Say) -> None:
        self._site, self._say = site, say
        self._lab = lab.default_name()
        self._gateway = next(iter(site.gateways))
        self._preamble = preamble(site, self._gateway, self._lab) + TOOLS.read_text()
        self._reports = (site.state or ROOT / "reports") / "sabotage"
        self._registry = vaults.registry_path(site).read_bytes()
        self._broken: list[Sabotage] = []
        self._handler: Any = None
        self.passing: list[str] = []

    def _insisting(self, what: str, action: Callable[[], T]) -> T:
        """What an action returns. One that could not do its work has one more try: a machine may have been busy."""
        try:
            return action()
        except GatehouseError as error:
            self.passing.append(f"{what}: {error}")
            self._say(f"  {what}: {error}: once more")
            return action()

    @property
    def is_broken(self) -> bool:
        """Whether something was broken and is not repaired yet."""
        return bool(self._broken)

    def __enter__(self) -> Bench:
        # A run that is told to end repairs, too.
        self._handler = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.is_broken:
                self._say("sabotage: repairing the gateway")
                self._repair_at_last()
        finally:
            signal.signal(signal.SIGTERM, self._handler)
            shutil.rmtree(self._reports, ignore_errors=True)

    def _repair_at_last(self) -> None:
        """An interrupt may have ended a deploy whose last command is still at work there."""
        self._insisting("repair", self.repair)

    def baseline(self) -> Checks:
        """What the suite says of the gateway as deployed. Raises `SabotageError` where a check fails already."""
        # What a killed run left.
        self._shell("\n".join(sabotage.ends for sabotage in SABOTAGES))
        self._shell_here("\n".join(sabotage.ends_here for sabotage in SABOTAGES))
        plan = self._insisting("plan", lambda: deploying.plan(self._site))
        if not plan.empty:
            raise SabotageError(
                f"{self._site.name}: not as declared, so nothing was broken: `invoke harden` first\n{plan}"
            )
        firmware.offer(self._site, lambda _: None)
        return self._insisting("baseline", self._all_well)

    def _all_well(self) -> Checks:
        found = self._insisting("suite", self.checks)
        if failed := [check for check in found.values() if check.verdict == "failed"]:
            raise SabotageError(
                f"{self._site.name}: {failed[0].id} fails before anything is broken: {failed[0].reason}"
                " (`invoke verify` says more)"
            )
        return found

    def ending(self, before: Checks) -> Checks:
        """What the suite says when all is repaired; once more where that is something else than before."""
        after = self._insisting("suite", self.checks)
        if not (fell := changed(before, after)):
            return after
        again = self._insisting("suite", self.checks)
        self.passing += [f"in the end: {i}: {said}" for i, said in fell.items() if i not in changed(before, again)]
        return again

    def round(self, sabotages: Sequence[Sabotage], before: Checks, number: str) -> list[Outcome]:
        """Breaks, asks, repairs; the outcomes."""
        marks = [time.monotonic()]
        self._say(f"round {number}: {', '.join(s.name for s in sabotages)}")
        unmade = {s.name: said for s in sabotages if (said := self._break(s))}
        marks.append(time.monotonic())
        after = self._insisting("suite", self.checks)
        marks.append(time.monotonic())
        left = self._insisting("repair", self.repair)
        times = [end - begin for begin, end in pairwise([*marks, time.monotonic()])]
        self._say(f"  broken in {times[0]:.0f} s, judged in {times[1]:.0f} s, repaired in {times[2]:.0f} s")
        found = judged(sabotages, before, after)
        return [replace(o, unmade=unmade.get(o.sabotage.name, ""), unrepaired=left) for o in found]

    def _break(self, sabotage: Sabotage) -> str:
        """Breaks one control; empty, or why that failed."""
        self._broken.append(sabotage)
        vault = vaults.open_vault(self._site)
        if sabotage.reads.startswith("firmware/"):
            FirmwareKeys(vault, self._site.name).ensure()
        given = vault.get_authority_key(sabotage.reads) if sabotage.reads else None
        last = newest_revoked(vaults.open_pki(self._site, vault))[0].to_bytes(16).hex().upper()
        said = self._shell_here(sabotage.here) if sabotage.here else ""
        return said or (self._shell(f"last_revoked={last}\n{sabotage.breaks}", given) if sabotage.breaks else "")

    def _shell_here(self, script: str) -> str:
        """Runs shell on the operator's side; empty, or why that failed."""
        known = {
            "REGISTRY": vaults.registry_path(self._site),
            "BUNDLES": enrolment.bundles_path(self._site),
            "PYTHON": sys.executable,
            "SITE": self._site.name,
            "DOMAIN": self._site.domain,
            "GATEWAY": self._gateway,
        }
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **{key: str(value) for key, value in known.items()}}
        try:
            done = subprocess.run(
                ["sh", "-euc", script], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=BREAK_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            return str(error)
        said = (done.stderr or done.stdout).strip().splitlines() or [f"status {done.returncode}"]
        return said[-1] if done.returncode else ""

    def _shell(self, script: str, given: bytes | None = None) -> str:
        try:
            done = lab.run(self._lab, self._gateway, ["sh", "-c", self._preamble + script], given, BREAK_SECONDS)
        except (LabError, TimeoutError) as error:
            return str(error)
        said = (done.stderr or done.stdout).strip().splitlines() or [f"status {done.returncode}"]
        return said[-1] if done.returncode else ""

    def checks(self) -> Checks:
        """What the whole suite says now, by check id. Raises `SabotageError` if it says nothing."""
        shutil.rmtree(self._reports, ignore_errors=True)
        command = [sys.executable, "-m", "pytest", "tests/compliance", "--site", self._site.name, "-q"]
        command += ["--reports", str(self._reports), "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=SUITE_SECONDS,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SabotageError(f"{self._site.name}: the compliance suite has no end after {SUITE_SECONDS} s") from None
        path = self._reports / self._site.name / results.LATEST / results.RESULTS
        if not path.exists():
            raise SabotageError(
                f"{self._site.name}: the compliance suite did not run: {(done.stderr or done.stdout)[-500:]}"
            )
        return {c.id: c for c in results.read(path).checks if c.gateway in (self._gateway, None)}

    def repair(self) -> str:
        """Takes away what no deploy can know of, then deploys; empty, or what a deploy would still change."""
        for sabotage in self._broken:
            if sabotage.ends:
                self._shell(sabotage.ends)
            if sabotage.ends_here:
                self._shell_here(sabotage.ends_here)
        write_private(vaults.registry_path(self._site), self._registry, 0o644)
        deploying.apply(self._site, quiet=True)
        plan = deploying.plan(self._site)
        self._broken.clear()
        return "" if plan.empty else str(plan)
