"""`test`: the tests, by tier."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from invoke import Context, task

from commands import common
from commands.common import told
from deploy.inventory import ROOT

# The tiers, and what pytest is told for each. Units share nothing: every core has a part of them.
SABOTAGE, LYNIS = "tests/lab/test_sabotage.py", "tests/vm/test_lynis.py"
RULES, GRUB = "tests/vm/test_audit_rules.py", "tests/vm/test_bootloader.py"
TIERS = {
    "unit": ("tests/unit", "-n", "auto", "--dist", "loadfile"),
    # From here on real programs run: a test that fails is made once more, and both results are told.
    "vm": ("tests/vm", *(f"--ignore={path}" for path in (LYNIS, RULES, GRUB)), "--reruns", "1"),
    "roles": ("tests/roles", "--reruns", "1"),
    "device": ("tests/device", "--reruns", "1"),
    # Two labs at a time (tests/lab/conftest.py).
    "lab": ("tests/lab", "-n", "2", "--dist", "loadfile", "--reruns", "1"),
    "sabotage": (SABOTAGE,),
    "vm-rules": (RULES,),
    "vm-grub": (GRUB,),
    "vm-lynis": (LYNIS,),
}
# The sabotages are a part of the lab's tests. On emulated machines Lynis takes long, one more start or deploy minutes.
ON_REQUEST = ("sabotage", "vm-rules", "vm-grub", "vm-lynis")
# One emulated machine keeps one core busy, most of the time: this tier goes on beside those that come after it.
BESIDE = "vm"
# What pytest's cache has: which tests failed in the last run, and why (tests/conftest.py).
LAST_FAILED, WHY = "cache/lastfailed", "gatehouse/why"


@task(help={"tier": f"only this tier: style, {', '.join(TIERS)}", "k": "only tests whose names match (pytest -k)"})
@told
def test(_: Context, tier: str = "", k: str = "") -> None:
    """Run every test: style, units, files judged by real programs, devices, both labs, every sabotage."""
    from deploy import tools

    if tier and tier not in ("style", *TIERS):
        sys.exit(f"test: no tier '{tier}' (use style, {', '.join(TIERS)})")
    tools.ensure(lambda line: print(line, flush=True))
    failed = _style() if tier in ("", "style") else []
    wanted = [each for each in TIERS if tier == each or (not tier and each not in ON_REQUEST)]
    by_tier = _run(wanted, *(["-k", k] if k else []))
    for each in wanted:
        _tell("made once more", _why(each).get("rerun", {}))
    for names in by_tier.values():
        _tell("failed", names)
    if failed := [*failed, *by_tier]:
        sys.exit(f"test: failed: {', '.join(failed)}")


def _style() -> list[str]:
    """The checks of style that failed."""
    checks = {
        "ruff check": ["ruff", "check", "."],
        "ruff format": ["ruff", "format", "--check", "."],
        "mypy": ["mypy"],
    }
    failed = []
    for name, command in checks.items():
        print(f"test: {name}", flush=True)
        if subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False).returncode:
            failed.append(name)
    return failed


def _run(tiers: list[str], *named: str) -> dict[str, dict[str, str]]:
    """Runs the tiers; of each that failed, the tests that did, and why."""
    failed: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryFile() as said, contextlib.ExitStack() as stack:
        beside: subprocess.Popen[bytes] | None = None
        for tier in tiers:
            _forgotten(tier)
            options = (*TIERS[tier], "-q", "--durations=10", "-o", f"cache_dir={_cache(tier)}", *named)
            if tier == BESIDE and tier != tiers[-1]:
                print(f"test: {tier}, beside the others: what it says comes at the end", flush=True)
                beside = stack.enter_context(_going_on(options, said))
                continue
            print(f"test: {tier}", flush=True)
            if common.pytest(*options):
                failed[tier] = _remembered(tier)
        if beside is not None:
            print(f"test: {BESIDE}, until its end", flush=True)
            status = beside.wait()
            said.seek(0)
            print(said.read().decode(errors="replace"), flush=True)
            if status:
                failed[BESIDE] = _remembered(BESIDE)
    return failed


@contextlib.contextmanager
def _going_on(options: tuple[str, ...], said: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Pytest in the background. It takes down what it has built, also where the others end early."""
    going = common.start_pytest(*options, said=said)
    try:
        yield going
    except KeyboardInterrupt:
        raise  # The terminal tells both.
    except BaseException:
        going.send_signal(signal.SIGINT)
        raise
    finally:
        going.wait()


def _cache(tier: str) -> Path:
    return ROOT / ".pytest_cache" / tier


def _forgotten(tier: str) -> None:
    for name in (LAST_FAILED, WHY):
        (_cache(tier) / "v" / name).unlink(missing_ok=True)


def _noted(tier: str, name: str) -> dict[str, Any]:
    """What pytest left in its cache under that name; empty where it left nothing that can be read."""
    try:
        noted = json.loads((_cache(tier) / "v" / name).read_text())
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _why(tier: str) -> dict[str, dict[str, str]]:
    """Why tests of a tier failed or were made once more, as tests/conftest.py notes it."""
    return _noted(tier, WHY)


def _remembered(tier: str) -> dict[str, str]:
    """The tests of a tier that failed, and why."""
    why = _why(tier).get("failed", {})
    return {name: why.get(name, "") for name in sorted({*_noted(tier, LAST_FAILED), *why})}


def _tell(what: str, tests: dict[str, str]) -> None:
    """A line for each test; one for all cases of a test that have the same reason."""
    alike: dict[tuple[str, str], list[str]] = {}
    for name, why in sorted(tests.items()):
        alike.setdefault((name.partition("[")[0] if why else name, why), []).append(name)
    for (_, why), names in alike.items():
        more = f" and {len(names) - 1} more of its cases" if len(names) > 1 else ""
        print(f"test: {what}: {names[0]}{more}{f': {why}' if why else ''}", flush=True)
