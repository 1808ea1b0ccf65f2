"""What a run of the compliance suite found out: one verdict a check, with evidence, in files that outlive the run."""

from __future__ import annotations

import contextlib
import json
import os
import xml.etree.ElementTree as ET  # noqa: S405  written here, never read
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from gatehouse.errors import GatehouseError
from gatehouse.proof.lives import Life
from gatehouse.proof.mends import mend

Verdict = Literal["proven", "failed", "not_proven"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

RESULTS = "results.json"
JUNIT = "junit.xml"
LATEST = "latest"
PAGE = "report.html"
OSCAL = "oscal.json"
KEPT = 50  # runs of a site
TOLD = 20  # runs that a report tells of


class ResultsError(GatehouseError):
    """Results that can't be written, or that contradict each other."""


@dataclass(frozen=True)
class Check:
    """A check that was made: `evidence` is what was sent from where, and what came back when; never a secret.

    `gateway` is None for what belongs to the site as a whole, `segment` for what no segment's position has seen.
    `warnings` say what is right now, and will not be for long. `waiver` is the site's, where one counts for a failure.
    """

    id: str
    title: str
    gateway: str | None
    segment: str | None
    verdict: Verdict
    evidence: tuple[Mapping[str, Any], ...] = ()
    reason: str | None = None
    controls: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    waiver: Mapping[str, Any] | None = None

    @property
    def key(self) -> tuple[str, str | None, str | None]:
        """What no other check of the run has."""
        return self.id, self.gateway, self.segment

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ResultsError(f"check {self.id}: {self.verdict!r} is no verdict (use {', '.join(VERDICTS)})")
        if self.verdict != "proven" and not self.reason:
            raise ResultsError(f"check {self.id}: {self.verdict} without a reason (say what was seen)")


@dataclass
class Run:
    """One run over one site. Times are UTC. `problems` make a run fail beside its checks: waivers that don't count.

    `lives` is what ends one day, the soonest first.
    """

    site: str
    version: str
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    finished: datetime | None = None
    checks: list[Check] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)

    def add(self, check: Check) -> None:
        """Takes a check in. Raises `ResultsError` for a second one with the same id, gateway and segment."""
        if any(check.key == other.key for other in self.checks):
            place = "/".join(part for part in (check.gateway, check.segment) if part)
            raise ResultsError(f"check {check.id} ({place or 'site'}): there are two (give one another id)")
        self.checks.append(check)

    @property
    def summary(self) -> dict[Verdict, int]:
        """How many checks have each verdict."""
        return {verdict: sum(check.verdict == verdict for check in self.checks) for verdict in VERDICTS}

    @property
    def succeeded(self) -> bool:
        """Whether something was proven, and nothing failed that isn't waived: no checks are no proof."""
        counts = self.summary
        return counts["proven"] > 0 and counts["failed"] == self.waived and not self.problems

    @property
    def waived(self) -> int:
        """How many of the failures are waived."""
        return sum(check.waiver is not None for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """What stands in results.json."""
        return {
            "site": self.site,
            "version": self.version,
            "started": self.started.isoformat(timespec="seconds"),
            "finished": self.finished.isoformat(timespec="seconds") if self.finished else None,
            "summary": self.summary,
            "waived": self.waived,
            "problems": self.problems,
            "lives": [asdict(life) for life in self.lives],
            "checks": [asdict(check) for check in self.checks],
        }


def new_folder(reports: Path, run: Run) -> Path:
    """Makes `reports/SITE/TIMESTAMP` for the files of a run, readable by its owner only: they describe the defences."""
    base = reports / run.site
    stamp = run.started.strftime("%Y-%m-%dT%H%M%SZ")
    for number in range(1, 100):
        folder = base / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            base.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700)
        except FileExistsError:
            continue
        except OSError as error:
            raise ResultsError(f"{folder}: {error.strerror} (the reports need a place to go)") from None
        return folder
    raise ResultsError(f"{base}: a hundred runs within one second")


def write(folder: Path, run: Run, page: str | None = None, oscal: str | None = None) -> Path:
    """Writes results.json, junit.xml, page and OSCAL form, then makes `latest` lead to this run; of many the oldest go.

    Each file and the link come to be in one step. Returns the path of results.json.
    """
    try:
        _put(folder / JUNIT, junit(run))
        if page is not None:
            _put(folder / PAGE, page)
        if oscal is not None:
            _put(folder / OSCAL, oscal)
        _put(folder / RESULTS, json.dumps(run.as_dict(), indent=1, ensure_ascii=False) + "\n")
        link = folder.parent / f".{LATEST}.new"
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name)
        os.replace(link, folder.parent / LATEST)
    except OSError as error:
        raise ResultsError(f"{folder}: {error.strerror} (nothing of an earlier run was changed)") from None
    _forget(folder)
    return folder / RESULTS


def _put(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.new")
    with open(beside, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def junit(run: Run) -> str:
    """The run as JUnit XML: a test case a check; one that is not proven counts as skipped."""
    counts = run.summary
    suite = ET.Element(
        "testsuite",
        name=f"gatehouse {run.site}",
        tests=str(len(run.checks)),
        failures=str(counts["failed"] - run.waived),
        skipped=str(counts["not_proven"] + run.waived),
        errors="0",
        timestamp=run.started.isoformat(timespec="seconds"),
        time=str((run.finished - run.started).total_seconds() if run.finished else 0),
    )
    for check in run.checks:
        place = ".".join(part for part in (run.site, check.gateway, check.segment) if part)
        case = ET.SubElement(suite, "testcase", classname=place, name=check.id)
        ET.SubElement(ET.SubElement(case, "properties"), "property", name="title", value=check.title)
        if check.verdict != "proven":
            failure = check.verdict == "failed" and check.waiver is None
            said = f"waived: {check.reason}" if check.waiver else check.reason or ""
            ET.SubElement(case, "failure" if failure else "skipped", message=said)
        ET.SubElement(case, "system-out").text = "\n".join(json.dumps(entry, default=str) for entry in check.evidence)
    ET.indent(suite, " ")
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _forget(newest: Path) -> None:
    earlier = [path for path in newest.parent.iterdir() if path.is_dir() and not path.is_symlink() and path != newest]
    earlier.sort(key=lambda path: path.stat().st_mtime_ns)
    for old in earlier[: max(0, len(earlier) + 1 - KEPT)]:
        for name in (RESULTS, JUNIT, PAGE, OSCAL):
            (old / name).unlink(missing_ok=True)
            (old / f".{name}.new").unlink(missing_ok=True)
        if not any(old.iterdir()):
            old.rmdir()


def earlier(folder: Path) -> list[Run]:
    """The runs beside this one's folder, the newest first, as many as are told of; unreadable ones are left out."""
    paths = [path for path in folder.parent.iterdir() if path.is_dir() and not path.is_symlink() and path != folder]
    paths.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    runs: list[Run] = []
    for path in paths[: TOLD - 1]:
        with contextlib.suppress(ResultsError):
            runs.append(read(path / RESULTS))
    return runs


def read(path: Path) -> Run:
    """The run of a results.json. Raises `ResultsError`."""
    try:
        found = json.loads(path.read_text())
        return Run(
            site=found["site"],
            version=found["version"],
            started=datetime.fromisoformat(found["started"]),
            finished=datetime.fromisoformat(found["finished"]) if found["finished"] else None,
            problems=list(found.get("problems", ())),
            lives=[Life(**life) for life in found.get("lives", ())],
            checks=[
                Check(
                    **{
                        **check,
                        "evidence": tuple(check["evidence"]),
                        "controls": tuple(check["controls"]),
                        "warnings": tuple(check.get("warnings", ())),
                    }
                )  # fmt: skip
                for check in found["checks"]
            ],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{path}: no results of a run: {error} (run `invoke verify` again)") from None


_COLOURS: Mapping[Verdict, str] = {"proven": "\033[32m", "failed": "\033[31m", "not_proven": "\033[33m"}


def table(run: Run, colour: bool = False) -> str:
    """What an operator reads: a row an area with its counts, each check that is not proven, and the verdict last."""

    def painted(text: str, verdict: Verdict) -> str:
        return f"{_COLOURS[verdict]}{text}\033[0m" if colour else text

    areas = sorted({_area(check) for check in run.checks})
    width = max([len(area) for area in areas] + [5])
    lines = [f"{'check':{width}}  {'proven':>6}  {'failed':>6}  {'not proven':>10}"]
    for area in areas:
        counts = [sum(c.verdict == verdict for c in run.checks if _area(c) == area) for verdict in VERDICTS]
        cells = (f"{count or '-':>{size}}" for count, size in zip(counts, (6, 6, 10), strict=True))
        shown = (painted(cell, v) if count else cell for cell, v, count in zip(cells, VERDICTS, counts, strict=True))
        lines.append(f"{area:{width}}  {'  '.join(shown)}")
    for verdict in ("failed", "not_proven"):
        chosen: list[Check] = [check for check in run.checks if check.verdict == verdict]
        lines += [""] if chosen else []
        for check in chosen:
            lines.append(painted(_line(check), check.verdict))
            todo = mend(check.id, run.site) if verdict == "failed" and check.waiver is None else ""
            lines += [f"    mend: {todo}"] if todo else []
    warned = [(check, text) for check in run.checks for text in check.warnings]
    lines += [""] if warned else []
    lines += [painted(f"warning: {check.id} ({_place(check)}): {text}", "not_proven") for check, text in warned]
    lines += [""] if run.problems else []
    lines += [painted(f"failed: {problem}", "failed") for problem in run.problems]
    return "\n".join([*lines, "", painted(conclusion(run), _overall(run))])


def conclusion(run: Run) -> str:
    """`lab: proven: 120 checks, 2 of them not proven`, the last line."""
    counts = run.summary
    rest = f" ({run.waived} waived)" if run.waived else ""
    rest += f", {counts['not_proven']} not proven" if counts["not_proven"] else ""
    if not run.checks:
        return f"{run.site}: FAILED: no check was made"
    word = "proven" if run.succeeded else "FAILED"
    return f"{run.site}: {word}: {counts['proven']} of {len(run.checks)} checks proven, {counts['failed']} failed{rest}"


def _overall(run: Run) -> Verdict:
    return "proven" if run.succeeded else "failed"


def _area(check: Check) -> str:
    return check.id.partition(".")[0]


def _line(check: Check) -> str:
    line = f"{check.verdict.replace('_', ' ')}: {check.id} ({_place(check)}): {check.reason}"
    if check.waiver is None:
        return line
    until, owner, why = (check.waiver[key] for key in ("expires", "owner", "reason"))
    return f"waived until {until} by {owner} ({why}): {line}"


def _place(check: Check) -> str:
    return "/".join(part for part in (check.gateway, check.segment) if part) or "site"


def merged(evidence: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """The evidence without repetitions, in its order."""
    seen: dict[str, Mapping[str, Any]] = {}
    for entry in evidence:
        seen.setdefault(json.dumps(entry, sort_keys=True, default=str), entry)
    return tuple(seen.values())
