"""The lab itself: built beside others, repaired after anything, and gone without a trace."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import lab
from commands import labs
from lab import containers, engine
from tests.checkout import Checkout, in_its_lab
from tests.lab.gateways import Gateway, wait

pytestmark = pytest.mark.timeout(900)


def traces(name: str) -> list[str]:
    """What there is of a lab on this machine: containers, interfaces, control groups, its folder."""
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout.splitlines()
    found = [line for line in links if f"gh-{name}" in line or f":{name}:" in line]
    there = containers.of_lab(engine.connect(), name)
    found += sorted(there)
    for container in there.values():
        found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{container.id}*")]
    folder = Path(lab.State(name).directory)
    return found + ([str(folder)] if folder.exists() else [])


@pytest.fixture
def spare(own_lab: Callable[[str, int], Checkout]) -> Checkout:
    return own_lab("spare", 20)


def test_down_leaves_nothing_and_a_second_down_is_no_error(spare: Checkout) -> None:
    with in_its_lab(spare):
        labs.build(spare.site)
        assert len(containers.of_lab(engine.connect(), spare.lab)) == len(lab.status(spare.lab)) >= 7
        groups = [str(c.id) for c in containers.of_lab(engine.connect(), spare.lab).values()]
        assert traces(spare.lab)
        removed = spare.invoke("lab.down")
        assert removed.status == 0, removed.text
        assert traces(spare.lab) == []
        assert [g for g in groups if any(Path("/sys/fs/cgroup").glob(f"*/docker/{g}"))] == []
        assert lab.status(spare.lab) == []
        lab.down(spare.lab)


def test_up_repairs_what_a_killed_up_left(spare: Checkout) -> None:
    with in_its_lab(spare):
        killed = spare.start("invoke", "lab.up")
        wait(lambda: len(containers.of_lab(engine.connect(), spare.lab)) >= 3, "the first containers")
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
        assert traces(spare.lab)

        labs.build(spare.site)
        gateway = Gateway(spare, spare.lab)
        assert gateway.elsewhere("station", "ping -c1 -W2 10.20.20.1 >/dev/null && echo reached") == "reached\n"
        assert {row.status for row in lab.status(spare.lab)} == {"running"}


def test_up_repairs_a_host_that_is_gone_or_has_lost_its_cables(spare: Checkout) -> None:
    with in_its_lab(spare):
        labs.build(spare.site)
        there = containers.of_lab(engine.connect(), spare.lab)
        containers.remove(there["device"])
        there["station"].restart(timeout=1)
        there["gateway"].kill("SIGKILL")
        labs.build(spare.site)
        gateway = Gateway(spare, spare.lab)
        for host in ("station", "internet"):
            assert gateway.elsewhere(host, "ip -o -4 addr show scope global | grep -c .").strip() >= "1"
        assert gateway.elsewhere("station", "ping -c1 -W2 10.20.20.1 >/dev/null && echo reached") == "reached\n"
        fresh = {host: c.id for host, c in containers.of_lab(engine.connect(), spare.lab).items()}
        labs.build(spare.site)
        assert {host: c.id for host, c in containers.of_lab(engine.connect(), spare.lab).items()} == fresh
