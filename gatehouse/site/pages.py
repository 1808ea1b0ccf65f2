"""The names that the HTTPS front serves, derived from what the services declare and the site names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from gatehouse.site.declaration import Listener, Service
from gatehouse.site.problems import Problem
from gatehouse.site.web import Acme

if TYPE_CHECKING:
    from gatehouse.site.model import Site

FRONT = "nginx"
OWN = "gateway"


@dataclass(frozen=True)
class Place:
    """What is behind a path of a name: a service's listener on loopback, and the paths that take a password."""

    path: str
    service: str
    listener: Listener
    logins: tuple[str, ...]


@dataclass(frozen=True)
class Host:
    """A name of the HTTPS front; `public` where a public CA vouches for it. `label` is what services call it by."""

    label: str
    name: str
    public: bool
    places: tuple[Place, ...]


def hosts(site: Site, gateway: str) -> tuple[Host, ...]:
    """The names of a gateway, its own first; none without the front."""
    services = site.services_of(gateway)
    if not any(service.name == FRONT for service in services):
        return ()
    places: dict[str, list[Place]] = {OWN: []}
    for service in services:
        known = {listener.name: listener for listener in service.listeners}
        for page in service.pages:
            # A listener that is off on this site has nothing to show.
            if page.listener in known:
                place = Place(page.path, service.name, known[page.listener], page.logins)
                places.setdefault(page.name, []).append(place)
    public = site.gateways[gateway].public_names
    return tuple(
        Host(label, public.get(label, f"{label}.{site.domain}"), label in public, tuple(found))
        for label, found in places.items()
    )


def labels(services: tuple[Service, ...]) -> set[str]:
    """What a site can give public names to; no device can be called so."""
    return {OWN, *(page.name for service in services for page in service.pages)}


def problems(sound: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with a site's public names, and with who shall vouch for them."""
    given = sound["given"]
    try:
        acme = Acme.model_validate(given["acme"]) if given.get("acme") is not None else None
    except ValidationError:
        return  # said by the fields themselves
    for field, path in (("trust", acme.trust), ("anchors", acme.anchors)) if acme else ():
        # The lab's own come when it is built.
        if path and not path.is_file() and not given.get("lab"):
            yield Problem(f"acme {field}", f"no file {path}", "name a file with certificates in PEM")
    known, seen = labels(sound["services"]), dict[str, str]()
    for gateway, description in sound["gateways"].items():
        place = f"gateway '{gateway}' public_names"
        for label, name in description.public_names.items():
            if label not in known:
                yield Problem(place, f"no page '{label}'", f"use one of {', '.join(sorted(known))}")
            if name == given.get("domain") or name.endswith(f".{given.get('domain')}"):
                yield Problem(place, f"{name} is below the site's own domain", "leave it out: the site's PKI has it")
            here = f"'{label}' of {gateway}"
            if (other := seen.setdefault(name, here)) != here:
                yield Problem(place, f"{name} is that of {other} too", "each page has its own")
        if description.public_names and not acme:
            yield Problem(place, "and no CA vouches for them", "add acme={} for Let's Encrypt, or remove the names")
        if description.public_names and acme and not acme.dns:
            yield from _challenge_problems(sound["services"], place)


def _challenge_problems(services: tuple[Service, ...], place: str) -> Iterator[Problem]:
    front = next((service for service in services if service.name == FRONT), None)
    if front and "internet" not in front.listener("http").reachable_from:
        yield Problem(
            place,
            "the CA looks for its challenge on port 80, which the internet does not reach",
            'add settings={"nginx": {"reachable_from": {"http": ["management", "internet"]}}}, or acme\'s `dns`',
        )
