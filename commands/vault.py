"""`vault.*`: the file with a site's secrets, and who can open it."""

from __future__ import annotations

import sys
from pathlib import Path

from invoke import Context, task

from commands import common
from commands.common import SITE, told


@task(help={**SITE, "name": "print this one secret, and nothing else"})
@told
def show(_: Context, site: str = "lab", name: str = "") -> None:
    """List a vault's entries, their kinds and ages, and who can open it; print a secret only when asked by name."""
    from deploy import vaultreport, vaults

    vault = vaults.open_vault(common.site(site))
    if name:
        sys.stdout.buffer.write(vaultreport.secret(vault, name, sys.stdout.isatty()))
    else:
        print(*vaultreport.table(vault), sep="\n")


@task(
    positional=["recipient"],
    help={
        **SITE,
        "recipient": "the age public key, age1…, that their identity file starts with",
        "name": "whose it is",
    },
)
@told
def add_recipient(_: Context, recipient: str, site: str = "lab", name: str = "") -> None:
    """Let one more person open a vault."""
    from deploy import vaults

    vault = vaults.open_vault(common.site(site))
    vault.add_recipient(recipient, name)
    print(f"{vault.where}: {vault.people.shown(recipient)} can open it now (commit the file)")


@task(positional=["recipient"], help={**SITE, "recipient": "age1…, or the name it goes by"})
@told
def remove_recipient(_: Context, recipient: str, site: str = "lab") -> None:
    """Shut a person out of a vault, and list what has to be replaced because of what they know."""
    from deploy import vaultreport, vaults

    vault = vaults.open_vault(common.site(site))
    vault.remove_recipient(recipient)
    print(
        f"{vault.where}: encrypted anew, to {len(vault.recipients)} recipients; {recipient} can't open it (commit it)"
    )
    print(*vaultreport.to_replace(vault), sep="\n")


@task(help=SITE)
@told
def rekey(_: Context, site: str = "lab") -> None:
    """Encrypt a vault anew to its present recipients, and list what someone who left still knows."""
    from deploy import vaultreport, vaults

    vault = vaults.open_vault(common.site(site))
    vault.rekey()
    print(f"{vault.where}: encrypted anew, to {len(vault.recipients)} recipients (commit the file)")
    print(*vaultreport.to_replace(vault), sep="\n")


@task(positional=["file"], help={**SITE, "file": "where to; an earlier backup of the site is replaced"})
@told
def backup(_: Context, file: str, site: str = "lab") -> None:
    """Write a site's vault, inventory and registry into one encrypted file, and read it back."""
    from deploy import backups

    made = backups.make(common.site(site), Path(file))
    print(f"{file}: {', '.join(made.files)}; opens with an identity that opens the vault: keep one elsewhere")


@task(
    positional=["file"],
    help={**SITE, "file": "the backup", "yes": "replace a vault that is there; it is kept beside as .previous"},
)
@told
def restore(_: Context, file: str, site: str, yes: bool = False) -> None:
    """Put a site back from its backup, on any machine that has an identity for it."""
    from deploy import backups

    for line in backups.restore(site, Path(file), replace=yes):
        print(line)
