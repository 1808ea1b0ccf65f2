"""What is searched for in the gateway's log."""

from __future__ import annotations

from gatehouse.proof import expect, words
from gatehouse.proof.observation import Observation
from tests.compliance.live import Live
from tests.compliance.once import once


@once
def searched(live: Live) -> tuple[set[str], Observation]:
    """The digests of the site's secrets, and where in the log a word has one of them."""
    wanted = words.digests(live.vault)
    probe = {"kind": "log-words", "digests": sorted(wanted), "timeout": 60}
    return wanted, live.ask({expect.GATEWAY: [probe]})[expect.GATEWAY][0]
