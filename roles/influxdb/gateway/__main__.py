"""The database's steward: keeps accounts, retention and summaries as declared. Deployed to /usr/lib/gatehouse/database.

first       before the unit listens: makes the administrator where there is none yet, where nobody else can be
check       prints what is not as declared, `as declared` where nothing is
settle      makes it as declared
devices     the names of the devices that something is stored of
count NAME  how many points of a device a query finds
erase NAME  deletes them
firmware    what each device has reported last of its firmware, as JSON
tries WHO   reads a login of WHO (`admin`, or a consumer) and prints whether it works: `taken` or `refused`
backup      writes the whole database to standard output, as a compressed tar
restore     replaces the whole database by such a tar from standard input
"""

from __future__ import annotations

import json
import os
import sys

import copies
import private
from common import ADMIN, Settings, Trouble
from engines import engine


def main(arguments: list[str]) -> int:
    """Runs one command; the exit status."""
    command, *names = arguments or ["help"]
    if command not in COMMANDS or len(names) != (command in ("count", "erase", "tries")):
        print(__doc__, file=sys.stderr)
        return 64
    # Whatever is written is nobody else's, from its first moment on.
    os.umask(0o077)
    try:
        COMMANDS[command](Settings.read(), *names)
    except Trouble as trouble:
        print(f"database: {trouble}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"database: {error} (is there room on the disk?)", file=sys.stderr)
        return 1
    return 0


def check(settings: Settings) -> None:
    """Prints the differences."""
    try:
        found = [*private.exposed(), *engine(settings).differences()]
    except Trouble as trouble:
        found = [str(trouble)]
    print("\n".join(found) or "as declared")


def settle(settings: Settings) -> None:
    """Settles, and looks again."""
    database = engine(settings)
    database.awake()
    if not database.enters():
        private.renew_administrator(settings)
        database = engine(settings)
        database.awake()
    database.settle()
    private.enclose()
    if left := list(database.differences()):
        raise Trouble(f"{left[0]}, although it was asked to change that (look at `journalctl -u influxdb`)")


def devices(settings: Settings) -> None:
    """One name a line."""
    print("\n".join(engine(settings).devices()))


def count(settings: Settings, name: str) -> None:
    """A number."""
    print(engine(settings).count(name))


def erase(settings: Settings, name: str) -> None:
    """Deletes, and says what a query finds after it."""
    database = engine(settings)
    before = database.count(name)
    database.erase(name)
    print(before, database.count(name))


def firmware(settings: Settings) -> None:
    """On one line."""
    print(json.dumps(engine(settings).firmware()))


def tries(settings: Settings, account: str) -> None:
    """Whether a login works; it comes on standard input, where no list of processes shows it."""
    if account != ADMIN and account not in settings.passwords:
        raise Trouble(f"{account[:64]!r} is nobody that the database knows")
    print("taken" if engine(settings).takes(account, sys.stdin.read().strip()) else "refused")


COMMANDS = {
    "first": private.first,
    "alone": private.alone,
    "check": check,
    "settle": settle,
    "devices": devices,
    "count": count,
    "erase": erase,
    "firmware": firmware,
    "tries": tries,
    "backup": copies.backup,
    "restore": copies.restore,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
