#!/usr/bin/python3
"""Runs on the gateway: keeps the dashboards' administrator at the password of the vault.

    dashboards awake     waits until Grafana answers, and has its database
    dashboards check     prints what is not as declared, `as declared` where nothing is
    dashboards settle    makes it as declared
    dashboards tries     says whether a password from standard input is the administrator's: `taken` or `refused`

Exit status 0 for done, 1 for not, with one line that says why. Grafana HTTP API: /api/health, /login; `grafana cli
admin reset-admin-password --password-from-stdin`. Grafana takes the password of its settings at its very first start
only. One login is tried a run: after five wrong ones within five minutes it would let in nobody of that name.
"""

from __future__ import annotations

import configparser
import http.client
import json
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path("/etc/gatehouse/grafana")
SETTINGS = FOLDER / "grafana.ini"
HOME = "/usr/share/grafana"
USER = "grafana"
PATIENCE = 120.0  # seconds: its first start builds its database
DATABASE_PATIENCE = 30.0
ANSWER_SECONDS = 30
RESET_SECONDS = 90


class Trouble(Exception):
    """What went wrong and what to do, for the operator."""


class Grafana:
    """The service as its settings say."""

    def __init__(self) -> None:
        found = configparser.ConfigParser(interpolation=None)
        try:
            found.read_string(SETTINGS.read_text())
            server, security = found["server"], found["security"]
            self._at = server["http_addr"], int(server["http_port"])
            self._administrator = security["admin_user"]
            self._password = (FOLDER / "admin_password").read_text().strip()
        except (OSError, KeyError, ValueError, configparser.Error) as error:
            raise Trouble(f"{SETTINGS}: {type(error).__name__} (deploy the gateway again)") from None

    def awake(self, patience: float = PATIENCE) -> None:
        """Waits until it answers and has its database. Raises `Trouble` with the last reason why not."""
        start = time.monotonic()
        while True:
            try:
                status, said = self._ask("GET", "/api/health")
                if status == 200:
                    return
                # It is up, and can't get at its database: what holds that rarely lets go by itself.
                patience = min(patience, DATABASE_PATIENCE)
                why = f"it answers {status}, its database is {said.get('database', 'unknown')} (is it locked?"
            except Trouble as trouble:
                why = f"{trouble} ("
            if time.monotonic() > start + patience:
                raise Trouble(f"{why} look at `journalctl -u grafana-server`)".replace("( ", "("))
            time.sleep(0.2)

    def lets_in(self, password: str = "") -> bool:
        """Whether a password is let in, the vault's where none is given. Raises `Trouble` where that can't be said."""
        given = {"user": self._administrator, "password": password or self._password}
        status, said = self._ask("POST", "/login", given)
        if status >= 500:
            raise Trouble(f"it can't log anybody in: {status} {said.get('message', '')} (is its database locked?)")
        return status == 200

    def reset(self) -> None:
        """Gives the administrator the password of the vault, on the CLI's standard input. Raises `Trouble`."""
        command = ["runuser", "-u", USER, "--", f"{HOME}/bin/grafana", "cli", "--homepath", HOME, "--config"]
        command += [str(SETTINGS), "admin", "reset-admin-password", "--password-from-stdin"]
        try:
            done = subprocess.run(
                command, input=f"{self._password}\n", capture_output=True, text=True, cwd="/", timeout=RESET_SECONDS,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Trouble(f"its CLI has no end after {RESET_SECONDS} s (is its database locked?)") from None
        said = (done.stdout + done.stderr).replace(self._password, "…")
        if done.returncode or "successfully" not in said:
            lines = [line.strip() for line in said.splitlines() if line.strip()]
            why = next(
                (line for line in lines if "locked" in line or "rror" in line), lines[-1] if lines else "nothing"
            )
            raise Trouble(f"the password could not be set, its CLI says: {why[:200]}")

    def _ask(self, method: str, path: str, content: dict[str, str] | None = None) -> tuple[int, dict[str, str]]:
        connection = http.client.HTTPConnection(*self._at, timeout=ANSWER_SECONDS)
        try:
            connection.request(method, path, content and json.dumps(content), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            status, text = answer.status, answer.read(100_000)
        except TimeoutError:
            raise Trouble(f"no answer to {path} within {ANSWER_SECONDS} s (is its database locked?)") from None
        except (OSError, http.client.HTTPException) as error:
            raise Trouble(f"it does not answer: {error or type(error).__name__}") from None
        finally:
            connection.close()
        try:
            said = json.loads(text)
        except ValueError:
            said = {}
        return status, said if isinstance(said, dict) else {}


def check(grafana: Grafana) -> None:
    """Prints the differences."""
    try:
        grafana.awake(patience=20)
        print("as declared" if grafana.lets_in() else "the administrator's login is refused")
    except Trouble as trouble:
        print(trouble)


def settle(grafana: Grafana) -> None:
    """Settles, and tries the door again."""
    grafana.awake()
    if grafana.lets_in():
        return
    grafana.reset()
    if not grafana.lets_in():
        raise Trouble("the login is refused although its password was set (five wrong ones bar it for five minutes)")


def tries(grafana: Grafana) -> None:
    """One login, with what stands on standard input."""
    grafana.awake()
    print("taken" if grafana.lets_in(sys.stdin.readline().strip() or "-") else "refused")


COMMANDS = {"awake": Grafana.awake, "check": check, "settle": settle, "tries": tries}


def main(arguments: list[str]) -> int:
    """Runs one command; the exit status."""
    if len(arguments) != 1 or arguments[0] not in COMMANDS:
        print(__doc__, file=sys.stderr)
        return 64
    try:
        COMMANDS[arguments[0]](Grafana())
    except Trouble as trouble:
        print(f"dashboards: {trouble}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
