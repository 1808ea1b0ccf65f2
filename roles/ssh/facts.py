"""What the SSH role must know about a host, asked at once."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from pyinfra.api import FactBase

DIRECTORY = "/etc/ssh"
# Outside the home directory, which its owner can write: only root adds a key.
KEYS = f"{DIRECTORY}/authorized_keys.d"
MODULI = f"{DIRECTORY}/moduli"
LISTENS = "^[[:space:]]*(Port|ListenAddress)[[:space:]]"
NEVER = 99999  # days until a password must be changed; shadow(5), and of an empty field the same
SMALLEST_MODULUS = 3071  # bits; moduli(5) gives one less than their name says


@dataclass(frozen=True)
class HostState:
    """The administrator: `exists`, is `locked` (no password fits) or `ages`; then what the role adds or takes away."""

    exists: bool = False
    locked: bool = False
    ages: bool = False
    shell: str = ""
    host_key: bool = False
    socket: bool = False
    weak_keys: tuple[str, ...] = ()
    weak_moduli: bool = False
    others: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()

    @property
    def clear(self) -> bool:
        """Whether nothing is left to take away: weak host keys and moduli, authorized keys of others."""
        return not (self.weak_keys or self.weak_moduli or self.others)


class SshHost(FactBase[HostState]):
    """The administrator's account, host keys, moduli, and listening addresses set in other files than the kit's."""

    default = HostState

    def command(self, user: str, host_key: str, own: str) -> str:
        """One shell."""
        name = shlex.quote(user)
        return (
            f"getent passwd {name} | sed 's/^[^:]*:.*:/shell /';"
            f" case $(getent shadow {name} | cut -d: -f2) in '!'*|'*') echo locked;; esac;"
            f" [ ! -s {host_key} ] || echo host_key; [ ! -s {host_key}.pub ] || echo host_key_public;"
            f' [ "$(getent shadow {name} | cut -d: -f5)" -lt {NEVER} ] 2>/dev/null && echo ages;'
            " systemctl is-active --quiet ssh.socket && echo socket;"
            f" for f in {DIRECTORY}/ssh_host_*; do"
            f" case $f in {host_key}|{host_key}.pub) ;; *) [ ! -e $f ] || echo weak $f;; esac; done;"
            f" for f in {KEYS}/*; do [ ! -e $f ] || [ $f = {KEYS}/{name} ] || echo other $f; done;"
            f" awk '!/^#/ && NF >= 7 && $5 < {SMALLEST_MODULUS} {{ print \"moduli\"; exit }}' {MODULI} 2>/dev/null;"
            f" grep -ilsE '{LISTENS}' {DIRECTORY}/sshd_config {DIRECTORY}/sshd_config.d/*.conf | grep -vxF {own}"
            " | sed 's/^/elsewhere /'; true"
        )

    def process(self, output: list[str]) -> HostState:
        """Lines of a word each, some with a path."""
        rows = [line.split(" ", 1) for line in output]
        words = {row[0]: row[-1] for row in rows}
        return HostState(
            exists="shell" in words,
            locked="locked" in words,
            ages="ages" in words,
            shell=words.get("shell", ""),
            host_key="host_key" in words and "host_key_public" in words,
            socket="socket" in words,
            weak_keys=tuple(row[1] for row in rows if row[0] == "weak"),
            weak_moduli="moduli" in words,
            others=tuple(row[1] for row in rows if row[0] == "other"),
            elsewhere=tuple(row[1] for row in rows if row[0] == "elsewhere"),
        )
