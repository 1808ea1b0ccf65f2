"""`test`: the tests, by tier."""

from __future__ import annotations

import json
import subprocess
import sys

from invoke import Context, task

from commands import common
from commands.common import told
from deploy.inventory import ROOT

# The tiers, and what pytest is told for each. Units share nothing: every core has a part of them.
SABOTAGE, LYNIS = "tests/lab/test_sabotage.py", "tests/vm/test_lynis.py"
TIERS = {
    "unit": ("tests/unit", "-n", "auto", "--dist", "loadfile"),
    # From here on real programs run: a test that fails is made once more, and both results are told.
    "roles": ("tests/roles", "--reruns", "1"),
    "device": ("tests/device", "--reruns", "1"),
    # Two labs at a time (tests/lab/conftest.py).
    "lab": ("tests/lab", "-n", "2", "--dist", "loadfile", "--reruns", "1"),
    "sabotage": (SABOTAGE,),
    # Emulated, the machines need both cores for themselves.
    "vm": ("tests/vm", f"--ignore={LYNIS}", "--reruns", "1"),
    "vm-lynis": (LYNIS,),
}
# The sabotages are a part of the lab's tests. Virtual machines take long where they are emulated.
ON_REQUEST = ("sabotage", "vm", "vm-lynis")


@task(help={"tier": f"only this tier: style, {', '.join(TIERS)}", "k": "only tests whose names match (pytest -k)"})
@told
def test(_: Context, tier: str = "", k: str = "") -> None:
    """Run every test: style, units, files judged by real programs, devices, the lab with every sabotage."""
    from deploy import tools

    if tier and tier not in ("style", *TIERS):
        sys.exit(f"test: no tier '{tier}' (use style, {', '.join(TIERS)})")
    tools.ensure(lambda line: print(line, flush=True))
    failed, fallen = list[str](), list[str]()
    if tier in ("", "style"):
        checks = {
            "ruff check": ["ruff", "check", "."],
            "ruff format": ["ruff", "format", "--check", "."],
            "mypy": ["mypy"],
        }
        for name, command in checks.items():
            print(f"test: {name}", flush=True)
            if subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False).returncode:
                failed.append(name)
    for each, options in TIERS.items():
        if tier == each or (not tier and each not in ON_REQUEST):
            print(f"test: {each}", flush=True)
            if common.pytest(*options, "-q", "--durations=10", *(["-k", k] if k else [])):
                failed.append(each)
                fallen += _fallen(options[0])
    for name in fallen:
        print(f"test: failed: {name}", flush=True)
    if failed:
        sys.exit(f"test: failed: {', '.join(failed)}")


def _fallen(where: str) -> list[str]:
    """The tests below a folder that failed the last time that they were run, as pytest remembers them."""
    try:
        known = json.loads((ROOT / ".pytest_cache/v/cache/lastfailed").read_text())
    except (OSError, ValueError):
        return []
    return sorted(name for name in known if name.startswith(where))
