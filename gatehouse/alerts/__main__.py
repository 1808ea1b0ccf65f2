"""`python3 -m gatehouse.alerts SETTINGS`: judges the collector's last reading, and tells what is new about it.

    alerts SETTINGS         SETTINGS is JSON, see `roles.alerts.files`; run once a minute
    alerts --check ROOT     says whether the files below ROOT would do

What could not be told is kept and tried again by the next run; that it could not is the exit status, and a line.
Whoever writes a text to the file `test` in its folder has it sent on all ways once, as an alert that is only a test.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from gatehouse.alerts import book as books
from gatehouse.alerts.habits import Who
from gatehouse.alerts.reading import LATE, Limits, Reading
from gatehouse.alerts.rules import came, wrong
from gatehouse.alerts.ways import Undelivered, way
from gatehouse.errors import GatehouseError

SETTINGS = "etc/gatehouse/alerts/alerts.json"
BUDGET = 25.0  # seconds that a way may take
LONGEST_TEST = 200
LONGEST_READING = 16_000_000
_PATHS = {"mqtt": ("ca", "client"), "webhook": ("trust", "secret"), "email": ("trust", "password")}


def main(arguments: list[str]) -> int:
    """Exit status: 0, 1 where something could not be read, kept or told, 2 for a wrong call."""
    if len(arguments) == 2 and arguments[0] == "--check":
        return check(Path(arguments[1]))
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python3 -m gatehouse.alerts SETTINGS", file=sys.stderr)
        return 2
    try:
        settings = json.loads(Path(arguments[0]).read_text())
        trouble = run(settings, time.time(), time.monotonic())
    except (OSError, ValueError, KeyError, TypeError, GatehouseError) as error:
        trouble = [f"{type(error).__name__}: {error}"]
    for line in trouble:
        print(f"gatehouse-alerts: {line}", file=sys.stderr)
    return 1 if trouble else 0


def check(root: Path) -> int:
    """Exit status: whether the settings below `root`, where they are staged, would do."""
    try:
        settings = json.loads((root / SETTINGS).read_text())
        Limits(**settings["limits"])
        for name in ("site", "gateway", "reading", "state", "calm", "own"):
            settings[name]
        _who(root / settings["devices"].lstrip("/"))
        for kind, given in settings["ways"].items():
            staged = {key: str(root / given[key].lstrip("/")) for key in _PATHS[kind] if given[key]}
            way(kind, {**given, **staged})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, GatehouseError) as error:
        print(f"gatehouse-alerts: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def run(settings: dict[str, Any], now: float, awake: float) -> list[str]:
    """Judges, keeps, tells; returns what went wrong, a line each. Raises `OSError` where nothing can be kept."""
    trouble: list[str] = []
    limits, folder = Limits(**settings["limits"]), Path(settings["state"])
    try:
        book = books.read(folder / "state.json")
    except ValueError as error:
        trouble.append(f"{error}: begun anew")
        book = books.Book()
    reading = _reading(Path(settings["reading"]), trouble)
    who, own = _devices(Path(settings["devices"]), trouble), settings["own"]
    if reading is not None:
        risen = book.counted.take(reading, limits.window)
        book.habits.take(reading, came(risen, own), who, limits)
        book.silence.take(reading, who)
    book.begun = book.begun or now
    was = {key: alert.text for key, alert in book.raised.items() if not key.startswith("delivery ")}
    missing = now - max(book.begun, book.counted.when)
    found = wrong(reading, book.counted, limits, was, now, min(awake, missing), own)
    if reading is not None and not reading.is_late(now):
        found |= book.habits.unusual(who, limits) | book.silence.found(who)
    for name, state in book.ways.items():
        if state.failing and now - state.failing > LATE:
            found[f"delivery {name}"] = f"{name} does not take alerts, {len(state.waiting)} wait: {state.error}"
    kinds = list(settings["ways"])
    book.keep_ways(kinds)
    for key, how, alert in book.settle(found, now, settings["calm"]):
        book.number += 1
        # sd-daemon(3): a warning, a notice
        print(f"<{5 if how == 'ended' else 4}>gatehouse-alerts: {how}: {alert.text}")
        book.put(books.message(settings["site"], settings["gateway"], book.number, key, how, alert, now), kinds)
    if text := _test(folder / "test", trouble):
        book.put(books.test_message(settings["site"], settings["gateway"], text), kinds)
    # Before anything is told: who is killed meanwhile tells it again, and never not at all.
    books.write(folder / "state.json", book)
    for kind, given in settings["ways"].items():
        if book.ways[kind].waiting:
            trouble += _deliver(book.ways[kind], kind, given, now)
            books.write(folder / "state.json", book)
    books.replace(folder / "status.json", book.status(now), 0o644)
    return trouble


def _reading(path: Path, trouble: list[str]) -> Reading | None:
    """The collector's last; None where there is none."""
    try:
        with path.open() as file:
            return Reading.of(json.loads(file.read(LONGEST_READING)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        trouble.append(f"{path}: {type(error).__name__}: {error}")
        return None


def _who(path: Path) -> dict[str, Who]:
    """The devices of the registry, by name. Raises `OSError`, `ValueError`, `KeyError` or `TypeError`."""
    found = json.loads(path.read_text())
    return {
        str(name): Who(str(each["model"]), str(each["address"]), int(each.get("silent_after", 0)))
        for name, each in found.items()
    }


def _devices(path: Path, trouble: list[str]) -> dict[str, Who]:
    """The same; without them the gateway's own numbers are judged all the same."""
    try:
        return _who(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        trouble.append(f"{path}: {type(error).__name__}: {error}")
        return {}


def _test(path: Path, trouble: list[str]) -> str:
    """The text of a test that somebody asked for; each is made once."""
    try:
        text = path.read_text(errors="replace")[:LONGEST_TEST].strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        trouble.append(f"{path}: {error.strerror} (let others read it)")
        text = ""
    path.unlink(missing_ok=True)
    return text


def _deliver(state: books.Way, kind: str, given: dict[str, Any], now: float) -> list[str]:
    """Tells what waits on a way; what was taken waits no longer. Returns why it went no further.

    What a slow way has no time for waits for the next run.
    """
    until = time.monotonic() + BUDGET
    try:
        with closing(way(kind, given).send([books.body(each) for each in state.waiting])) as taken:
            for _ in taken:
                del state.waiting[0]
                if time.monotonic() > until:
                    break
    except Undelivered as error:
        if state.waiting:  # otherwise it only did not say goodbye
            state.failing, state.error = state.failing or now, str(error)[:200]
            return [f"{kind}: {len(state.waiting)} wait: {error}"]
    state.failing, state.error = 0.0, ""
    return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
