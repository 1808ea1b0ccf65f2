"""What to do where a gateway can't be reached: added to what pyinfra says of it."""

from __future__ import annotations

import logging
from pathlib import Path

from gatehouse.site import Site

# pyinfra's advice for a changed host key is about the user's own known_hosts: the site has one of its own.
_MISLEADING = ("If this is expected, you can remove the bad key", "ssh-keygen -R ")


class _Mends(logging.Filter):
    def __init__(self, mends: dict[str, str]) -> None:
        super().__init__()
        self.mends = mends

    def filter(self, record: logging.LogRecord) -> bool:
        """Completes the record, or keeps it back."""
        said = record.getMessage()
        if any(text in said for text in _MISLEADING):
            return False
        for beginning, mend in self.mends.items():
            if f"{beginning} (" in said:
                record.msg, record.args = f"{said} ({mend})", ()
                break
        return True


def show(site: Site, known_hosts: Path) -> None:
    """Makes pyinfra's connection errors end in what to do about them."""
    again = "`./kit lab.up` pins the lab's keys" if site.lab else f"`./kit trust --site {site.name}` pins a new one"
    mends = {
        "Could not connect": "is it on, and are you in its management segment? A hardened gateway answers nowhere else",
        "SSH error": f"does SSH answer there, with the host key that {known_hosts} has? {again}",
        "EOF error": "SSH hung up: try again; if it stays so, look at the gateway's console",
        "Could not resolve hostname": "mend the contact's address in the site",
        "Authentication error": f"use a key that the site lists under ssh, or that {site.ssh.user} has there now",
        "SSH host key error": f"if it was reinstalled, remove its line from {known_hosts}; {again}",
    }
    logger = logging.getLogger("pyinfra")
    for former in [entry for entry in logger.filters if isinstance(entry, _Mends)]:
        logger.removeFilter(former)
    logger.addFilter(_Mends(mends))
