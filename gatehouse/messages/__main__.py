"""`python3 -m gatehouse.messages SETTINGS`: runs the intake until SIGTERM."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from pathlib import Path

from gatehouse.errors import GatehouseError
from gatehouse.messages import keyfile
from gatehouse.messages import settings as reading
from gatehouse.messages.counts import Counts
from gatehouse.messages.influx import Database
from gatehouse.messages.intake import Intake, subscriber_of
from gatehouse.messages.mqtt import tls_of
from gatehouse.messages.settings import DatabaseSettings


def database_of(found: DatabaseSettings) -> Database:
    """The client that the settings name. Raises `MessageError`."""
    return Database(
        "influxdb2" if found.engine == "influxdb2" else "influxdb1",
        found.url,
        Path(found.ca),
        Path(found.credential),
        address=found.address,
        database=found.database,
        user=found.user,
        org=found.org,
        bucket=found.bucket,
    )


def check(root: Path) -> int:
    """Exit status: whether the intake could begin with its files as they lie below `root`, where they are staged."""
    try:
        found = reading.read(root / "etc/gatehouse/intake/intake.toml")
        keyfile.read(_below(root, found.messages.keys))
        broker, database = found.broker, found.database
        tls_of(str(_below(root, broker.ca)), str(_below(root, broker.client)))
        places = {"ca": str(_below(root, database.ca)), "credential": str(_below(root, database.credential))}
        database_of(replace(database, **places))
    except GatehouseError as error:
        print(f"gatehouse-intake: {error}", file=sys.stderr)
        return 1
    return 0


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def main(arguments: list[str]) -> int:
    """Exit status: 0 after SIGTERM, 1 where the intake can't begin."""
    if len(arguments) != 1:
        print("usage: python3 -m gatehouse.messages SETTINGS", file=sys.stderr)
        return 2
    try:
        found = reading.read(Path(arguments[0]))
        source, storage = subscriber_of(found), database_of(found.database)
        intake = Intake(found, source, storage, Counts(Path(found.metrics)))
    except GatehouseError as error:
        print(f"gatehouse-intake: {error}", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: intake.stop())
    intake.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
