"""New passwords for the programs of a site, at once and on the running gateways."""

from __future__ import annotations

from collections.abc import Sequence

from deploy import vaults
from deploy.devices import Log, update_broker
from deploy.remote import connected
from gatehouse.errors import GatehouseError
from gatehouse.identity import programs
from gatehouse.site import Site
from roles.mosquitto import files as mosquitto
from roles.target import Target


class ProgramError(GatehouseError):
    """A program that there is not, or a gateway that does not know the new password yet."""


def rotate(site: Site, names: Sequence[str], log: Log) -> None:
    """Gives programs new passwords. Brokers end the sessions of the former ones, and take those no more.

    Written down first; what a gateway does not know yet, the next harden brings there.
    """
    unknown = [name for name in names if name not in site.programs]
    if unknown or not names:
        known = ", ".join(site.programs) or "none: add them to `programs` of the site"
        raise ProgramError(f"{unknown[0] if unknown else 'no name'}: no such program (the site has {known})")
    vault = vaults.open_vault(site)
    pki = vaults.open_pki(site, vault)
    with vault.transaction():
        for name in names:
            programs.rotate(vault, name)
            programs.password_file(vault, [name])
    away = []
    for gateway in site.gateways:
        target = Target(site, gateway, lambda: pki)
        if not mosquitto.passwords(target):
            continue
        try:
            with connected(site, gateway) as remote:
                update_broker(remote, target)
        except GatehouseError as error:
            away.append(f"{error}: there the former password is still good (run harden)")
            continue
        log(f"{gateway}: takes the new passwords, and the former ones no more")
    for name in names:
        log(f"{name}: logs in as {programs.user_name(name)}; `./kit vault.show --name {programs.secret_name(name)}`")
    if away:
        raise ProgramError("\n".join(away))
