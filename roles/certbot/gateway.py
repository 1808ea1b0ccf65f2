#!/usr/bin/python3 -I
"""Has certificates of a public CA issued and renewed, and installs them where they are used.

    certificates renew      what the timer runs: issues what is missing, renews what is due, installs what is not in use
    certificates due        the names for which that would do something, a line each
    certificates rehearse   tries a renewal of each name without any consequence
    certificates install    certbot's deploy hook: installs the certificate in $RENEWED_LINEAGE

Exit status 1, and a line for each name that has a problem. Settings are in SETTINGS; certbot does the talking.
"""

import contextlib
import datetime
import fcntl
import grp
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

SETTINGS = Path("/etc/gatehouse/certbot/settings.json")
SECONDS = 600  # how long certbot may take for one name
# What certbot's words mean for the operator: (a pattern of what it says, what that is). The first that fits counts.
MEANINGS = (
    (r"rateLimited|too many", "the CA has had too many requests for this name; it is asked again tomorrow"),
    (r"(error:|Type: +)dns", "the CA does not find the name; does it lead to this gateway?"),
    (r"(error:|Type: +)connection", "the CA does not reach the gateway; does the name lead here, and port 80 through?"),
    (
        r"(error:|Type: +)unauthorized",
        "the CA got another answer to its challenge; does the name lead to this gateway?",
    ),
    (r"(error:|Type: +)caa", "the name's CAA record forbids this CA"),
    (r"rejectedIdentifier", "the CA issues nothing for this name"),
    (r"Unable to determine base domain", "the name server has no zone for the name"),
    (
        r"from server: (REFUSED|NOTAUTH)|BADKEY|BADSIG|didn't like the",
        "the name server refuses the update; is its key acme/tsig?",
    ),
    (
        r"not yet valid|has expired",
        "the CA's certificate is of another time; is the gateway's clock right? (chronyc tracking)",
    ),
    (r"CERTIFICATE_VERIFY_FAILED", "what answers as the CA has a certificate that nobody vouches for"),
    (r"NewConnectionError|Connection refused", "the CA does not answer; is the gateway on the internet?"),
    (r"timed out", "the CA does not answer in time"),
    (r"Some challenges have failed", "the CA's challenge was not met"),
)
LIMITED = MEANINGS[0][1]


class Failed(Exception):
    """What went wrong with one name."""


class Settings:
    """What the deploy wrote; `root` is before every path, for tests."""

    def __init__(self, content: dict, root: str = "") -> None:
        self.root = root
        self.directory, self.staging, self.email = content["directory"], content["staging"], content["email"]
        self.dns, self.webroot = content["dns"], content["webroot"]
        self.renew_at, self.trust, self.anchors = content["renew_at"], content["trust"], content["anchors"]
        self.names = content["names"]
        self.folder, self.state = content["folder"], Path(content["state"])

    def lineage(self, name: str) -> Path:
        """Where certbot keeps the certificate of a name and its key."""
        return Path(self.folder) / "live" / name


def explained(said: str) -> str:
    """The meaning of what certbot said, with its own last words."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    detail = next((line.removeprefix("Detail: ") for line in lines if line.startswith("Detail:")), "")
    last = detail or next((line for line in reversed(lines) if not re.match(r"(Ask|See|Saving|Hint)", line)), "no word")
    meaning = next((meaning for words, meaning in MEANINGS if re.search(words, said, re.IGNORECASE)), "")
    return f"{meaning}: {last[:300]}" if meaning else last[:300]


def life(certificate: x509.Certificate) -> tuple[datetime.datetime, datetime.datetime]:
    """When a certificate begins and ends, UTC; older versions of the library say it without a zone."""
    try:
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except AttributeError:
        utc = datetime.timezone.utc  # noqa: UP017  (as the rest here, it runs on what Debian has)
        return certificate.not_valid_before.replace(tzinfo=utc), certificate.not_valid_after.replace(tzinfo=utc)


def used_up(certificate: x509.Certificate, now: datetime.datetime) -> float:
    """The fraction of its life that is over."""
    begin, end = life(certificate)
    return (now - begin) / (end - begin)


def leaf(chain: Path) -> x509.Certificate:
    """The first certificate of a chain."""
    return x509.load_pem_x509_certificate(chain.read_bytes())


def flaw(settings: Settings, name: str, chain: Path, key: Path) -> str:
    """Why a certificate would be of no use to those who come, or nothing."""
    try:
        certificate = leaf(chain)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        private = load_pem_private_key(key.read_bytes(), None)
    except (OSError, ValueError, x509.ExtensionNotFound) as error:
        return f"can't be read: {error}"
    if name not in names.get_values_for_type(x509.DNSName):
        return "is for another name"
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        return "does not belong to its key"
    trusted = ["-CAfile", settings.anchors] if settings.anchors else ["-CApath", "/etc/ssl/certs"]
    verify = ["openssl", "verify", *trusted, "-purpose", "sslserver", "-untrusted", str(chain), str(chain)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "error" in line]
        return f"is trusted by no client: {said[0] if said else done.stderr.strip()}"
    return ""


def is_installed(settings: Settings, name: str) -> bool:
    """Whether each consumer has what certbot has, with the right owner."""
    live = settings.lineage(name)
    for consumer in settings.names[name]:
        folder = Path(consumer["folder"])
        key = folder / "key.pem"
        try:
            same = (folder / "chain.pem").read_bytes() == (live / "fullchain.pem").read_bytes()
            same = same and key.read_bytes() == (live / "privkey.pem").read_bytes()
            state = key.stat()
            owned = grp.getgrgid(state.st_gid).gr_name == consumer["group"] and state.st_mode & 0o777 == 0o640
        except (OSError, KeyError):
            return False
        if not (same and owned and (not consumer["enables"] or os.path.exists(consumer["enables"][0]))):
            return False
    return True


def is_due(settings: Settings, name: str, now: datetime.datetime) -> bool:
    """Whether a certificate must be issued or renewed."""
    live = settings.lineage(name)
    chain, key = live / "fullchain.pem", live / "privkey.pem"
    if not chain.exists() or not key.exists() or flaw(settings, name, chain, key):
        return True
    return used_up(leaf(chain), now) >= settings.renew_at


def command(settings: Settings, name: str, *options: str, server: str) -> list[str]:
    """certbot's command line for one name."""
    asked = ["certbot", "certonly", "--non-interactive", "--agree-tos", "--server", server, "--cert-name", name]
    asked += ["--domain", name, "--key-type", "ecdsa", "--elliptic-curve", "secp256r1", "--max-log-backups", "10"]
    asked += ["--email", settings.email, "--no-eff-email"] if settings.email else ["--register-unsafely-without-email"]
    if settings.dns:
        asked += ["--dns-rfc2136", "--dns-rfc2136-credentials", settings.dns["credentials"]]
        asked += ["--dns-rfc2136-propagation-seconds", str(settings.dns["patience"])]
    else:
        asked += ["--webroot", "--webroot-path", settings.webroot]
    for where in ("config", "work", "logs"):
        asked += [f"--{where}-dir", f"{settings.root}{FOLDERS[where]}"] if settings.root else []
    return [*asked, *options]


FOLDERS = {"config": "/etc/letsencrypt", "work": "/var/lib/letsencrypt", "logs": "/var/log/letsencrypt"}


def run(settings: Settings, argv: list[str]) -> None:
    """Runs certbot. Raises `Failed` with what it means."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    if settings.trust:
        environment["REQUESTS_CA_BUNDLE"] = settings.trust
    try:
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Failed(f"the CA does not answer in time: nothing after {SECONDS} s") from None
    except OSError as error:
        raise Failed(f"certbot: {error.strerror}") from None
    if done.returncode:
        raise Failed(explained(done.stdout + done.stderr))


def obtain(settings: Settings, name: str) -> None:
    """Has a certificate issued or renewed; a name that has none yet is tried at the staging directory first."""
    note = settings.state / f"{name}.limited"
    if note.exists() and now_utc().timestamp() - note.stat().st_mtime < 86_400:
        raise Failed(LIMITED)
    try:
        if settings.staging and not settings.lineage(name).exists():
            run(settings, command(settings, name, "--dry-run", server=settings.staging))
        try:
            run(settings, command(settings, name, "--force-renewal", server=settings.directory))
        except Failed as error:
            # An account that the CA no longer knows: a new one.
            if "account" not in str(error).lower():
                raise
            shutil.rmtree(Path(settings.folder) / "accounts", ignore_errors=True)
            run(settings, command(settings, name, "--force-renewal", server=settings.directory))
    except Failed as error:
        if str(error).startswith(LIMITED):
            settings.state.mkdir(parents=True, exist_ok=True)
            note.touch()
        raise
    note.unlink(missing_ok=True)


def install(settings: Settings, name: str) -> None:
    """Gives the certificate and its key to each consumer, sees it used, or brings the former back. Raises `Failed`."""
    live = settings.lineage(name)
    chain, key = live / "fullchain.pem", live / "privkey.pem"
    if found := flaw(settings, name, chain, key):
        raise Failed(f"not installed: the certificate {found}")
    for consumer in settings.names[name]:
        _install(name, consumer, chain.read_bytes(), key.read_bytes())


def _install(name: str, consumer: dict, chain: bytes, key: bytes) -> None:
    folder = Path(consumer["folder"])
    new = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder.parent))
    former = folder.resolve() if folder.is_symlink() else None
    try:
        _write(new / "chain.pem", chain, 0o644, "root")
        _write(new / "key.pem", key, 0o640, consumer["group"])
        new.chmod(0o755)
        _point(folder, new)
        if consumer["enables"]:
            _point(Path(consumer["enables"][0]), Path(consumer["enables"][1]))
        _use(consumer)
    except (Failed, OSError, KeyError) as error:
        if former is not None and former.exists():
            _point(folder, former)
        else:
            folder.unlink(missing_ok=True)
            for path in consumer["enables"][:1]:
                Path(path).unlink(missing_ok=True)
        shutil.rmtree(new, ignore_errors=True)
        with contextlib.suppress(Failed):
            _use({**consumer, "proves": []})
        raise Failed(f"not installed, the former certificate is back: {error}") from None
    for other in folder.parent.glob(f".{name}.*"):
        if other != new:
            shutil.rmtree(other, ignore_errors=True)


def _write(path: Path, content: bytes, mode: int, group: str) -> None:
    """Nobody else can read it at any moment."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        os.fchown(file.fileno(), -1, grp.getgrnam(group).gr_gid)
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())


def _point(link: Path, target: Path) -> None:
    """Makes or changes a symbolic link in one step."""
    beside = link.with_name(f".{link.name}.gatehouse-new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(os.path.relpath(target, link.parent))
    beside.replace(link)


def _use(consumer: dict) -> None:
    for argv in (consumer["reloads"], consumer["proves"]):
        if argv:
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Failed(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()[:300] or done.returncode}")


def now_utc() -> datetime.datetime:
    """Now."""
    return datetime.datetime.now(datetime.timezone.utc)  # noqa: UP017


def renew(settings: Settings) -> list[str]:
    """Does what is to be done for each name; returns the problems, one name's not in the way of the others."""
    problems = []
    for name in settings.names:
        try:
            if is_due(settings, name, now_utc()):
                obtain(settings, name)
                print(f"{name}: issued", flush=True)
            if not is_installed(settings, name):
                install(settings, name)
                forget(settings, name)
                print(f"{name}: installed", flush=True)
            else:
                _shown(settings, name)
        except Failed as error:
            problems.append(f"{name}: {error}")
    return problems


def forget(settings: Settings, name: str) -> None:
    """Removes the keys of former certificates, and certbot's own copies: a key that nobody uses helps thieves alone."""
    folder = Path(settings.folder)
    used = {path.resolve() for path in settings.lineage(name).glob("*.pem")}
    for path in (*folder.glob(f"archive/{name}/*.pem"), *folder.glob("keys/*.pem"), *folder.glob("csr/*.pem")):
        if path not in used:
            path.unlink(missing_ok=True)


def _shown(settings: Settings, name: str) -> None:
    """A consumer that shows another one reads it again."""
    for consumer in settings.names[name]:
        try:
            _use({**consumer, "reloads": []})
        except Failed:
            _use(consumer)


def due(settings: Settings) -> list[str]:
    """The names for which `renew` would do something."""
    return [name for name in settings.names if is_due(settings, name, now_utc()) or not is_installed(settings, name)]


def rehearse(settings: Settings) -> list[str]:
    """Tries to renew each name at the staging directory, or at the CA itself where there is none."""
    problems = []
    for name in settings.names:
        try:
            run(settings, command(settings, name, "--dry-run", server=settings.staging or settings.directory))
        except Failed as error:
            problems.append(f"{name}: {error}")
    return problems


def main(arguments: list[str]) -> int:
    """Runs one of the commands."""
    if len(arguments) != 1 or arguments[0] not in ("renew", "due", "rehearse", "install"):
        print(f"usage: {__doc__}", file=sys.stderr)
        return 2
    settings = Settings(json.loads(SETTINGS.read_text()))
    (what,) = arguments
    if what == "due":
        print(*due(settings), sep="\n", end="\n" * bool(due(settings)))
        return 0
    if what == "install":
        name = Path(os.environ.get("RENEWED_LINEAGE", "")).name
        # What `renew` does itself is not done twice.
        problems = (
            [] if name not in settings.names or os.environ.get("GATEHOUSE_RENEWS") else _installed(settings, name)
        )
    else:
        with open("/run/gatehouse-certificates.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.environ["GATEHOUSE_RENEWS"] = "1"
            problems = renew(settings) if what == "renew" else rehearse(settings)
    for problem in problems:
        print(f"certificates: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _installed(settings: Settings, name: str) -> list[str]:
    try:
        install(settings, name)
    except Failed as error:
        return [f"{name}: {error}"]
    return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
