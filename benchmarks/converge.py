"""How long deploys take: the first against apt alone; the second, which changes nothing, against a floor and Ansible.

`python -m benchmarks.converge [--json]`; docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import playbook, throwaway
from benchmarks.measure import ROOT, BenchmarkError, Ratio, Run, in_turn, main, progress, timed
from benchmarks.states import State

APT = "DEBIAN_FRONTEND=noninteractive apt-get -q -y"


def measure(chosen: argparse.Namespace) -> list[Ratio]:
    """All three ratios."""
    playbook.environment(progress)
    throwaway.enter("benchmarks.converge")
    first = [(_first_deploy(), _apt_alone()) for _ in range(chosen.fresh)]
    return [Ratio("first deploy ÷ apt alone", first, 1.5), *_second_deploys(chosen.rounds)]


def _deploy() -> Run:
    return timed(throwaway.command("-y", "inventories/lab", "deploy.py"))


def _first_deploy() -> Run:
    """The whole deploy of a gateway that is as its installer left it."""
    with throwaway.fresh():
        run = _deploy()
    progress(f"first deploy: {run.seconds:.1f} s")
    return run


def _apt_alone() -> Run:
    """What apt takes on such a gateway for the packages of the roles, and nothing else."""
    import lab
    from gatehouse.site import load

    packages = sorted({p for s in load("lab", ROOT).services_of("gateway") for p in s.packages})
    script = f"{APT} update && {APT} --no-install-recommends install {' '.join(packages)}"
    with throwaway.fresh() as name:
        started = time.perf_counter()
        done = lab.run(name, "gateway", ["sh", "-c", script], timeout=None)
        seconds = time.perf_counter() - started
    if done.returncode != 0:
        raise BenchmarkError(f"apt-get: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    progress(f"apt alone: {seconds:.1f} s")
    return Run(seconds)


def _second_deploys(rounds: int) -> Sequence[Ratio]:
    """Deploys that change nothing, their floor, and Ansible with the same states, in turn on one gateway."""
    from deploy import run
    from deploy.inventory import connection
    from gatehouse.site import load

    with throwaway.fresh(), tempfile.TemporaryDirectory() as made:
        _deploy()
        site = load("lab", ROOT)
        folder = Path(made)
        states = _states(folder)
        data = connection(site, "gateway")
        ansible = partial(
            timed, playbook.write(states, data, folder), cwd=folder, environment={**os.environ, "ANSIBLE_HOME": made}
        )
        progress(f"Ansible: {len(playbook.tasks(states))} tasks")
        # Ansible's own first run installs what its modules need, and connects.
        ansible()
        _deploy()
        _nothing_to_change(run.plan(site))
        runs = in_turn(rounds, _deploy, partial(_floor, states, data), ansible, log=progress)
        _nothing_to_change(run.plan(site))
    return (
        Ratio("second deploy ÷ floor", [(ours, floor) for ours, floor, _ in runs], 3),
        Ratio("second deploy ÷ Ansible", [(ours, theirs) for ours, _, theirs in runs], 1 / 12),
    )


def _states(folder: Path) -> list[State]:
    """What the deploy manages, as it says itself."""
    file = folder / "states.json"
    options = ("--dry", "-y", "inventories/lab", "deploy.py", "benchmarks/recording.py", "--data", f"record={file}")
    timed(throwaway.command(*options))
    recorded = json.loads(file.read_text())
    if recorded["unknown"]:
        progress(f"left out of the playbook, in Ansible's favour: {', '.join(recorded['unknown'])}")
    return list(recorded["states"])


def _floor(states: Sequence[State], data: dict[str, Any]) -> Run:
    paths = [state["path"] for state in states if state["kind"] == "file"]
    where = (data["ssh_hostname"], data["ssh_port"], data["ssh_user"], data["ssh_key"], data["ssh_known_hosts_file"])
    return timed([sys.executable, "-m", "benchmarks.floor", *map(str, where), *paths])


def _nothing_to_change(plan: Any) -> None:
    if not plan.empty:
        raise BenchmarkError(f"the second deploy is not without changes: {plan}")


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fresh", type=int, default=3, help="fresh gateways for the first deploy, and as many for apt")
    parser.add_argument("--rounds", type=int, default=5, help="second deploys, each beside a floor and an Ansible run")


if __name__ == "__main__":
    sys.exit(main("converge", measure, _options))
