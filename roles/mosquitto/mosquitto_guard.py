#!/usr/bin/python3 -B
"""Runs on the gateway: never hands the broker a file that it has not accepted, and never believes a reload.

    mosquitto-guard check ROOT   starts a broker of its own on the files below ROOT and tries it; keeps the running set
    mosquitto-guard reload       makes the broker read its files again, and restarts it where a reload is not enough
    mosquitto-guard prove        shows on every listener who is let in and who is not; what was kept is then dropped
    mosquitto-guard restore      brings back the set that `check` kept, and proves it

Exit status 0 for done, 1 for refused with one line that says why. Mosquitto 2.0 fails open on a broken CRL or ACL at
SIGHUP: the unit stays active, a revoked device connects, every topic is open to everyone.
"""

from __future__ import annotations

import sys
from pathlib import Path

# What it consists of lies beside it, also where a deploy has staged both to be asked before they are in place.
sys.path.insert(0, str(Path(__file__).resolve().parent / "mosquitto"))

from guard.main import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
