"""What the kernel's ruleset is like now."""

from __future__ import annotations

from pyinfra.api import FactBase

LOADED = "/run/gatehouse/firewall.loaded"
TABLE = "inet gatehouse"
# What the resolver and the packets put into sets is not the file's.
AS_LOADED = (
    r"awk '/^\t(set|map) /{d=0} /^\t\t(flags .*dynamic|timeout )/{d=1}"
    r" d&&/elements = /{s=1} !s{print} s&&/}$/{s=0}'"
)
# The same line is written after each load and compared here: the file, and the kernel's table without its counters.
DIGEST = (
    "{{ sha256sum < {file}; nft -s list table "
    + TABLE
    + " | "
    + AS_LOADED.replace("{", "{{").replace("}", "}}")
    + "; }} 2>&1 | sha256sum"
)


class RulesetLoaded(FactBase[bool]):
    """Whether the kernel's table is exactly the one that was loaded from the file as it is on disk now."""

    def command(self, file: str) -> str:
        """One listing of the table."""
        return f"{DIGEST.format(file=file)} | cmp -s - {LOADED} && echo same || echo differs"

    def process(self, output: list[str]) -> bool:
        """True for the same."""
        return output == ["same"]
