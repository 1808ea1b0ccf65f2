"""`ca.*`: the authorities of a site, and the broker's key."""

from __future__ import annotations

from invoke import Context, task

from commands import common
from commands.common import SITE, told

ROLE = {**SITE, "role": "devices or services"}


@task(help={**SITE, "json": "print JSON instead of the table"})
@told
def status(_: Context, site: str = "lab", json: bool = False) -> None:
    """List authorities, revocation lists and server certificates: state, end, days and part of their life left."""
    from deploy import authorities

    print(authorities.as_json(common.site(site)) if json else "\n".join(authorities.table(common.site(site))))


@task(help={**ROLE, "issue": "second step: the new one issues from now on"})
@told
def rollover(_: Context, role: str, site: str = "lab", issue: bool = False) -> None:
    """Replace an issuing authority: make the new one, beside the old; with --issue, let it issue."""
    from deploy import authorities

    print(authorities.issue(common.site(site), role) if issue else authorities.prepare(common.site(site), role))


@task(help={**ROLE, "force": "even if devices need it: they must be enrolled again by hand"})
@told
def drop(_: Context, role: str, site: str = "lab", force: bool = False) -> None:
    """Forget the former authorities once nothing depends on them, and destroy their keys."""
    from deploy import authorities

    print(authorities.drop(common.site(site), role, force))


@task(
    help={
        **SITE,
        "gateway": "whose broker (not needed where there is one)",
        "force": "even if devices may not know the backup key: one that pins keys is stranded then",
    },
)
@told
def move_to_backup_key(_: Context, site: str = "lab", gateway: str = "", force: bool = False) -> None:
    """Replace the broker's key by the one that devices have pinned in advance; refused where one has not."""
    from deploy import brokerkeys

    print(brokerkeys.move(common.site(site), gateway, force))
