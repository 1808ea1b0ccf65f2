"""Files of nobody on a site's gateways: looked for now, shown, and accepted by somebody who has seen them."""

from __future__ import annotations

import shlex

from deploy.asking import each
from deploy.data import one_gateway
from deploy.remote import Remote, connected
from deploy.whoami import whoami
from gatehouse.proof.integrity import IntegrityError, Looked, read
from gatehouse.site import Site
from roles.integrity import files, service

# What the program says of itself is the reason; systemd only says that it failed.
_LOOK = (
    f"systemctl start {files.UNIT} 2>/dev/null || {{ journalctl -u {files.UNIT} -n 20 -o cat --no-pager"
    " | grep '^gatehouse-integrity: ' | tail -n 1 >&2; exit 1; }"
)


def look(site: Site, gateway: str = "", *, anew: bool = True) -> list[Looked]:
    """What there is of nobody on the gateways, or on one of them; with `anew` they look now, which takes a while.

    Raises `DataError`, `RemoteError`, `IntegrityError`, and `Unanswered` for several.
    """
    able = site.gateways_with(service.name)
    names = [one_gateway(site, gateway)] if gateway else able
    if not names or not set(names) <= set(able):
        raise IntegrityError(f"{site.name}: {gateway or 'every gateway'} goes without '{service.name}' (see the site)")

    def ask(name: str) -> Looked:
        with connected(site, name) as remote:
            return _looked(remote, anew)

    return each(names, ask)


def accept(site: Site, shown: Looked) -> None:
    """Takes what was shown for what shall be there; it is in the gateway's log who did. Raises `RemoteError`.

    Raises `IntegrityError` where something else is found now than what was shown: that is not accepted.
    """
    note = f"files of nobody accepted by {whoami()}: {shown.count} ({shown.digest[:16]})"
    with connected(site, shown.gateway) as remote:
        remote.run(f"umask 022; printf %s {shlex.quote(shown.digest)} >{files.ACCEPT}")
        if _looked(remote, anew=True).count:
            raise IntegrityError(f"{shown.gateway}: other files than those shown are found: nothing was accepted")
        remote.run(f"logger -t gatehouse -p auth.notice -- {shlex.quote(note)}")


def _looked(remote: Remote, anew: bool) -> Looked:
    return read(remote.gateway, remote.run(f"{_LOOK if anew else ':'}; cat {files.STATUS}"))
