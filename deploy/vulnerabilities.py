"""Known vulnerabilities of a site: of the kit's own packages by pip-audit, of the gateways' by debsecan.

Both run on this machine; a gateway is only asked for its packages. What can't be asked is said, and is not "none".
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from deploy import osvserver
from deploy.asking import each
from deploy.data import one_gateway
from deploy.environments import environment
from deploy.inventory import ROOT
from deploy.remote import connected
from gatehouse.errors import GatehouseError
from gatehouse.proof import feeds, sbom, vulnerabilities
from gatehouse.proof.vulnerabilities import FeedError, Side
from gatehouse.site import Site

TRACKER = "https://security-tracker.debian.org/tracker/debsecan/release/1/"
LOCK = "requirements.lock"
OPERATOR = "this machine"
LARGEST = 128 * 1024 * 1024  # bytes of a feed as it is sent: Debian's has about 3 million
PATIENCE = 30  # seconds without a byte


class SourceError(GatehouseError):
    """A source that can't be meant."""


def look(site: Site, gateway: str, debian: str, python: str, log: Callable[[str], None]) -> list[Side]:
    """This machine, and the site's gateways or one of them, in this order; several are asked at a time.

    `debian` and `python` are other sources than Debian's security tracker and PyPI: an https address, or a file.
    Raises `SourceError`, `DataError`.
    """
    for option, source in (("--debian-source", debian), ("--python-source", python)):
        _judge(option, source)
    names = [one_gateway(site, gateway)] if gateway else list(site.gateways)
    tracker = Tracker(debian)

    def ask(side: str) -> Side:
        return of_python(ROOT / LOCK, python, log) if side == OPERATOR else _of_gateway(site, side, tracker)

    return each([OPERATOR, *names], ask)


def _judge(option: str, source: str) -> None:
    if not source:
        return
    parts = urlsplit(source)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")):
        return
    if parts.scheme and "://" in source:
        why = "somebody on the way could leave entries out" if parts.scheme == "http" else "it is no web address"
        raise SourceError(f"{option}: {source[:80]!r}: {why} (use https, or a file that you downloaded)")
    if not Path(source).exists():
        raise SourceError(f"{option}: {source[:80]}: there is no such file (download the feed, or name an address)")


def of_python(lock: Path, source: str, log: Callable[[str], None]) -> Side:
    """What pip-audit says of the packages of a lock file."""
    try:
        program = environment("pip-audit", log) / "pip-audit"
        with _osv(source) as (about, options):
            said = _pip_audit([str(program), *options, "--requirement", str(lock)], about)
            asked, found, skipped = vulnerabilities.of_pip_audit(said)
    except (GatehouseError, OSError) as error:
        return Side(OPERATOR, "", 0, problem=_line(error))
    problem = ""
    if skipped or not asked:
        which = f"{len(skipped)} of {asked} packages, such as {skipped[0]}" if skipped else f"what is in {lock.name}"
        problem = f"{about}: knows nothing of {which} (try --python-source)"
    return Side(OPERATOR, f"{lock.name} by {about}", asked, found, problem=problem)


@contextmanager
def _osv(source: str) -> Iterator[tuple[str, list[str]]]:
    """What is asked, and how pip-audit is told: PyPI, an address that answers as OSV does, or an archive of OSV's."""
    if not source:
        yield "PyPI", ["--vulnerability-service", "pypi"]
        return
    if "://" in source:
        yield source, ["--vulnerability-service", "osv", "--osv-url", source]
        return
    path = Path(source)
    try:
        entries = feeds.osv_entries(path.read_bytes())
    except FeedError as error:
        raise FeedError(f"{source}: {error}") from None
    with osvserver.serving(entries) as address:
        yield _dated(path), ["--vulnerability-service", "osv", "--osv-url", address]


def _pip_audit(command: list[str], about: str) -> str:
    """Its JSON. It ends with 1 for a vulnerability and for an error alike: only the first has an answer."""
    command += ["--require-hashes", "--disable-pip", "--format", "json", "--progress-spinner", "off", "--timeout", "15"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=osvserver.direct())
    except subprocess.TimeoutExpired:
        raise FeedError("pip-audit: no answer within 600 s") from None
    if done.returncode not in (0, 1) or not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        if last.startswith("requests.exceptions."):  # which it does not take for its own affair
            kind = last.partition(":")[0].rpartition(".")[2]
            raise FeedError(f"{about}: can't be reached: {kind} (try --python-source)")
        raise FeedError(f"pip-audit: {last}")
    return done.stdout


def _of_gateway(site: Site, gateway: str, tracker: Tracker) -> Side:
    try:
        with connected(site, gateway) as remote:
            found = sbom.answer(remote.run(sbom.QUESTION))
        return of_debian(gateway, found, tracker)
    except (GatehouseError, OSError, subprocess.TimeoutExpired) as error:
        return Side(gateway, "", 0, problem=_line(error).removeprefix(f"{gateway}: "))


def of_debian(gateway: str, found: sbom.Answer, tracker: Tracker) -> Side:
    """What debsecan says of a gateway's packages. Raises `FeedError`."""
    suite = vulnerabilities.SUITES.get(found.release) if found.distribution == "debian" else None
    if suite is None:
        raise FeedError(f"{found.distribution} {found.release}: no release that Debian's security tracker knows")
    program = shutil.which("debsecan")
    if program is None:
        raise FeedError("debsecan is not on this machine (apt-get install debsecan)")
    asked = [package for package in found.packages if vulnerabilities.from_debian(package)]
    others = tuple(f"{p.name} {p.version}" for p in found.packages if not vulnerabilities.from_debian(p))
    about, feed = tracker.feed(suite)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / suite).write_bytes(feed)
        (folder / "status").write_text(vulnerabilities.dpkg_status(asked))
        command = [program, "--suite", suite, "--source", folder.as_uri(), "--status", str(folder / "status")]
        # What is set up on this machine is about this machine.
        command += ["--config", str(folder / "nothing"), "--whitelist", str(folder / "nothing"), "--format", "detail"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode != 0 or done.stderr.strip():
        raise FeedError(f"debsecan: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
    return Side(gateway, f"{suite} by {about}", len(asked), vulnerabilities.of_debsecan(done.stdout), others)


@dataclass
class Tracker:
    """Debian's security tracker, or a mirror of it: an address, a folder or a file; a feed is named as its suite."""

    source: str
    _had: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    _one: threading.Lock = field(default_factory=threading.Lock)

    def feed(self, suite: str) -> tuple[str, bytes]:
        """What is asked, and its feed for a suite, packed as it was sent: fetched once. Raises `FeedError`."""
        with self._one:
            if suite not in self._had:
                self._had[suite] = self._judged(suite)
            return self._had[suite]

    def _judged(self, suite: str) -> tuple[str, bytes]:
        about, data = self._fetch(suite) if "://" in (self.source or TRACKER) else self._read(suite)
        try:
            feeds.judge_debian(data)
        except FeedError as error:
            raise FeedError(f"{about}: {error}") from None
        return about, data

    def _fetch(self, suite: str) -> tuple[str, bytes]:
        address = f"{(self.source or TRACKER).rstrip('/')}/{suite}"
        try:
            with urllib.request.urlopen(address, timeout=PATIENCE) as answer:  # noqa: S310  https, as was judged
                data, came_by = answer.read(LARGEST + 1), urlsplit(answer.url).scheme
        except urllib.error.URLError as error:
            raise FeedError(f"{address}: {error.reason} (try --debian-source)") from None
        except OSError as error:
            raise FeedError(f"{address}: {error} (try --debian-source)") from None
        if len(data) > LARGEST or came_by != urlsplit(address).scheme:
            raise FeedError(f"{address}: leads elsewhere, or to more than such a feed has")
        return (self.source or "Debian's security tracker"), data

    def _read(self, suite: str) -> tuple[str, bytes]:
        path = Path(self.source)
        file = path / suite if path.is_dir() else path
        if file.name != suite:
            raise FeedError(f"{path}: which suite is it of? (call the file {suite})")
        try:
            return _dated(file), file.read_bytes()
        except OSError as error:
            raise FeedError(f"{file}: {error.strerror} (download the feed of {suite} there)") from None


def _dated(path: Path) -> str:
    """A file with its date: an old one knows nothing of what came after."""
    return f"{path} of {datetime.fromtimestamp(path.stat().st_mtime, UTC):%Y-%m-%d}"


def _line(error: Exception) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= 240 else f"{said[:240]}…"
