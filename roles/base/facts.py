"""What of Debian's accounts and logins is set in files that are no service's own."""

from __future__ import annotations

from pathlib import Path

from pyinfra.api import FactBase

LOGIN_DEFS = "/etc/login.defs"
# Written by pam-auth-update(8), from the profiles that packages bring along.
PASSWORDS = "/etc/pam.d/common-password"


class Defined(FactBase[dict[str, str]]):
    """`{name: value}` of what login.defs(5) sets."""

    default = dict

    def command(self) -> str:
        """One awk."""
        return f"awk '/^[A-Z]/ && NF == 2 {{ print $1, $2 }}' {LOGIN_DEFS}"

    def process(self, output: list[str]) -> dict[str, str]:
        """`{"UMASK": "022", …}`; of a name that is set twice the last."""
        return {row[0]: row[1] for row in (line.split() for line in output) if len(row) == 2}


class JudgesPasswords(FactBase[str]):
    """How PAM asks passwdqc about a new password: `judges` and its options; empty where it doesn't."""

    default = str

    def command(self) -> str:
        """One sed."""
        return f"sed -nE 's/^password.*pam_passwdqc\\.so/judges/p' {PASSWORDS} 2>/dev/null || true"

    def process(self, output: list[str]) -> str:
        """`judges min=…`."""
        return " ".join(output[0].split()) if output else ""


class Guards(FactBase[list[str]]):
    """The lines of PAM's files for logins and passwords that count guesses and remember passwords, in their order."""

    default = list

    def command(self) -> str:
        """One grep."""
        files = " ".join(f"{Path(PASSWORDS).parent}/common-{what}" for what in ("auth", "account", "password"))
        return f"grep -shE '^[a-z].*pam_(faillock|pwhistory)[.]so' {files} || true"

    def process(self, output: list[str]) -> list[str]:
        """`["auth requisite pam_faillock.so preauth …", …]`."""
        return [" ".join(line.split()) for line in output]


class CoreLimit(FactBase[str]):
    """The largest core dump, in bytes, of what systemd starts from now on; `infinity` where there is no limit."""

    default = str

    def command(self) -> str:
        """One systemctl."""
        return "systemctl show --property=DefaultLimitCORE --value"

    def process(self, output: list[str]) -> str:
        """`0`."""
        return "".join(output).strip()
