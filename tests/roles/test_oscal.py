"""The OSCAL form of a run, judged by compliance-trestle, which knows nothing of the kit."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy.environments import environment
from gatehouse.proof import oscal
from gatehouse.proof.results import Check, Run

WAIVER = {"reason": "r", "owner": "Ada", "expires": "2999-01-01", "compensated_by": "b.c"}
JUDGE = """
import sys
from pathlib import Path
from trestle.oscal.assessment_results import AssessmentResults
for path in sys.argv[1:]:
    read = AssessmentResults.oscal_read(Path(path))
    print(len(read.results[0].observations or []), len(read.results[0].findings or []))
"""


@pytest.fixture(scope="module")
def run() -> Run:
    """A run with every verdict, a waiver, evidence with all kinds of characters, and a control in two checks."""
    made = Run("home", "1.2 (abc)")
    seen = ({"from": "iot", "sent": "TLS handshake", "got": "ünwanted\\ \u2028 <x>", "at": None, "open": ["22/tcp"]},)
    tls, flow = "ETSI-EN-303-645-v3.1.3:5.5-1", "IEC-62443-3-3/4-2:SR/CR 4.1"
    made.add(Check("a.good", "It holds", "gw", "iot", "proven", seen, controls=(tls, flow)))
    made.add(Check("a.bad", "It holds not", "gw", None, "failed", reason="it answered", controls=(flow,)))
    made.add(Check("a.waived", "Neither", None, None, "failed", reason="so", controls=(tls,), waiver=WAIVER))
    made.add(Check("a.open", "Unknown", "gw", None, "not_proven", reason="no", controls=("OWASP-IoT-Top10-2018:I2",)))
    return made


def judged(tmp_path: Path, *documents: str) -> tuple[int, str]:
    paths = []
    for number, text in enumerate(documents):
        paths.append(str(tmp_path / f"{number}.json"))
        Path(paths[-1]).write_text(text)
    python = environment("trestle", print) / "python"
    done = subprocess.run([str(python), "-c", JUDGE, *paths], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr[-2000:]


def test_a_run_is_valid_oscal_and_an_empty_one_too(run: Run, tmp_path: Path) -> None:
    status, said = judged(tmp_path, oscal.document(run), oscal.document(Run("home", "1")))
    assert (status, said.split()) == (0, ["4", "4", "0", "0"]), said


def test_the_judge_refuses_what_is_none(run: Run, tmp_path: Path) -> None:
    broken = json.loads(oscal.document(run))
    broken["assessment-results"]["results"][0]["findings"][0]["target"]["status"]["state"] = "proven"
    status, said = judged(tmp_path, json.dumps(broken))
    assert status != 0 and "state" in said


def test_a_control_is_satisfied_only_where_it_is_proven(run: Run) -> None:
    found: dict[str, Any] = json.loads(oscal.document(run))["assessment-results"]["results"][0]
    states = {finding["title"]: finding["target"]["status"]["state"] for finding in found["findings"]}
    assert set(states.values()) == {"not-satisfied"} and "IEC-62443-3-3/4-2:SR/CR 4.1" in states
    identities = {observation["uuid"] for observation in found["observations"]}
    related = [o["observation-uuid"] for finding in found["findings"] for o in finding["related-observations"]]
    assert set(related) <= identities


def test_the_same_run_is_the_same_document(run: Run) -> None:
    assert oscal.document(run) == oscal.document(run)
