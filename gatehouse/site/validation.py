"""Checks a site as a whole, and says everything that is wrong with it at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import combinations
from typing import Annotated, Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from gatehouse.site import model
from gatehouse.site.alerts import alert_problems
from gatehouse.site.coap import coap_problems
from gatehouse.site.declaration import ClosedPort, Declaration, Flow, Listener, Service
from gatehouse.site.egress import Destination
from gatehouse.site.egress_problems import destination_problems
from gatehouse.site.pages import problems as page_problems
from gatehouse.site.problems import Problem, SiteError
from gatehouse.site.remote import has_peers, remote_problems
from gatehouse.site.waivers import Waiver

# Fields whose items are validated one by one, so that one bad item hides no problem of the others.
_TABLES: dict[str, type[model.Model | Declaration]] = {
    "segments": model.Segment,
    "gateways": model.Gateway,
    "settings": model.Setting,
    "destinations": Destination,
    "waivers": Waiver,
}
# What a message of pydantic's becomes for the operator: (pattern in the type, mend).
_MENDS = {
    "extra_forbidden": ("unknown key", "remove it, or look for a slip of the pen"),
    "missing": ("missing", "add it"),
    "too_short": ("is empty", "add at least one"),
    "string_pattern_mismatch": ("has characters or a length that a name here can't have", "use {pattern}"),
}


def settle(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a valid site, its settings applied to its services. Raises `SiteError` with every problem."""
    devices, device_problems = _devices(data.get("devices"))
    problems = [*_field_problems(data), *device_problems]
    sound = {**_salvage(data), "devices": devices}
    services, setting_problems = _with_settings(sound)
    problems += setting_problems
    sound["services"] = services
    problems += _segment_problems(sound)
    problems += _gateway_problems(sound)
    problems += _listener_problems(sound)
    problems += destination_problems(sound)
    problems += remote_problems(sound)
    problems += _device_problems(sound)
    problems += page_problems(sound)
    problems += alert_problems(sound)
    problems += coap_problems(sound)
    if problems:
        raise SiteError(problems)
    return {**data, "services": services, "devices": tuple(sound["devices"])}


def _items(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _field_problems(data: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with single fields: wrong types, unknown keys, values out of range."""
    fields = model.Site.model_fields
    for name, field in fields.items():
        if name not in data:
            if field.is_required():
                yield Problem(f"site.{name}", "missing", "add it")
            continue
        if name == "devices" and isinstance(data[name], list | tuple):
            continue
        try:
            _adapter(name).validate_python(data[name])
        except ValidationError as error:
            yield from (_problem(name, details) for details in error.errors())
    for name in data.keys() - fields.keys():
        yield Problem(f"site.{name}", "unknown key", "remove it, or look for a slip of the pen")


def _devices(entries: Any) -> tuple[list[model.Device], list[Problem]]:
    """The devices that are sound on their own, and what is wrong with the others: each is validated once."""
    sound: list[model.Device] = []
    problems: list[Problem] = []
    for index, entry in enumerate(_entries(entries)):
        try:
            sound.append(model.Device.model_validate(entry))
        except ValidationError:
            problems += entry_problems(entry, index + 1)
    return sound, problems


def entry_problems(entry: Any, number: int) -> Iterator[Problem]:
    """What is wrong with the fields of one entry of the registry; without a name it is called by its number."""
    try:
        model.Device.model_validate(entry)
    except ValidationError as error:
        where = entry.get("name", number) if isinstance(entry, Mapping) else number
        yield from (_problem("device", {**d, "loc": (str(where), *d["loc"])}) for d in error.errors())


def _entries(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else ()


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    """What validates one field of a site on its own."""
    hint = get_type_hints(model.Site, include_extras=True)[name]
    metadata = model.Site.model_fields[name].metadata
    return TypeAdapter(Annotated[hint, *metadata] if metadata else hint)


def _problem(field: str, details: Mapping[str, Any]) -> Problem:
    """An entry of pydantic's, in the operator's words: `segment 'iot' vlan: …`."""
    path = [
        str(part)
        for part in details["loc"]
        if part not in ("[key]",) and not str(part).startswith(("function-", "lax-"))
    ]
    if field in ("segments", "gateways", "destinations", "settings", "waivers", "device") and path:
        place = f"{field.removesuffix('s')} '{path[0]}'" + "".join(f" {part}" for part in path[1:])
    else:
        place = " ".join([field, *path])
    kind, message = details["type"], details["msg"]
    if kind in _MENDS:
        what, mend = _MENDS[kind]
        return Problem(place, what, mend.format(**{"pattern": "", **(details.get("ctx") or {})}))
    what, bar, mend = message.removeprefix("Value error, ").partition("|")
    given = details.get("input")
    if not bar:
        what, mend = f"{given!r}: {what}" if isinstance(given, str | int | float) else what, "correct the value"
    return Problem(place, what, mend)


def _salvage(data: Mapping[str, Any]) -> dict[str, Any]:
    """The parts that are sound on their own, so that the whole can be checked despite the rest."""
    sound: dict[str, Any] = {"given": data}
    for name, kind in _TABLES.items():
        sound[name] = {}
        for key, value in _items(data.get(name)).items():
            try:
                sound[name][key] = kind.model_validate(_without_broken_networks(value))
            except ValidationError:
                continue
    sound["services"] = tuple(s for s in _entries(data.get("services")) if isinstance(s, Service))
    for name, kind in (("broker", model.Broker), ("ssh", model.Ssh), ("database", model.Database)):
        try:
            sound[name] = kind.model_validate(data.get(name, {}))
        except ValidationError:
            sound[name] = None
    # Names of items that exist but are broken still count as known.
    sound["known_segments"] = set(_items(data.get("segments")))
    sound["known_gateways"] = set(_items(data.get("gateways")))
    sound["known_networks"] = {
        name: set(_items(_items(value).get("networks"))) for name, value in _items(data.get("gateways")).items()
    }
    return sound


def _without_broken_networks(value: Any) -> Any:
    """A gateway with only its sound networks; anything else as it is."""
    if not isinstance(value, Mapping) or not isinstance(value.get("networks"), Mapping):
        return value
    networks = {}
    for segment, network in value["networks"].items():
        try:
            networks[segment] = model.Network.model_validate(network)
        except ValidationError:
            continue
    return {**value, "networks": networks}


def _with_settings(sound: Mapping[str, Any]) -> tuple[tuple[Service, ...], list[Problem]]:
    """The services with the site's ports and reach, and what is wrong with the settings."""
    problems: list[Problem] = []
    by_name: dict[str, Service] = {service.name: service for service in sound["services"]}
    settings: dict[str, model.Setting] = dict(sound["settings"])
    for name, setting in settings.items():
        place = f"setting '{name}'"
        if name not in by_name:
            problems.append(Problem(place, "no such service", f"use one of {', '.join(sorted(by_name))}"))
            continue
        known = {listener.name for listener in by_name[name].listeners}
        for asked in (setting.ports.keys() | setting.reachable_from.keys()) - known:
            problems.append(
                Problem(place, f"no listener '{asked}'", f"use one of {', '.join(sorted(known)) or 'none'}")
            )
        for asked, port in setting.ports.items():
            if not 1 <= port <= 65535:
                problems.append(Problem(f"{place} ports {asked}", f"{port} is no port", "use one from 1 to 65535"))
    ssh: model.Ssh | None = sound["ssh"]

    def applied(service: Service, listener: Listener) -> Listener:
        # Roles speak of the usual segments; a site need not have them all.
        known = sound["known_segments"]
        default = tuple(s for s in listener.reachable_from if s in known or s not in model.USUAL_SEGMENTS)
        change: dict[str, Any] = {"reachable_from": default}
        setting = settings.get(service.name)
        if setting and 1 <= setting.ports.get(listener.name, 1) <= 65535:
            change["port"] = setting.ports.get(listener.name, listener.port)
            change["reachable_from"] = setting.reachable_from.get(listener.name, default)
        if ssh and listener.encryption == "ssh":
            change["port"] = ssh.port
        return listener.model_copy(update=change)

    services = []
    engine = sound["database"].engine if sound["database"] else ""
    for service in (s for s in sound["services"] if _is_on(s, sound)):
        possible = [entry for entry in service.listeners if entry.engine in ("", engine)]
        on = tuple(applied(service, entry) for entry in possible if _is_on(entry, sound))
        off = tuple(
            ClosedPort(port=entry.port, transport=entry.transport, reason=f"the site has no {entry.only_with}")
            for entry in possible
            if not _is_on(entry, sound)
        )
        packages = service.packages + service.engines.get(engine, ())
        flows = tuple(flow for flow in service.flows if _is_on(flow, sound))
        changed = {"listeners": on, "closed": (*service.closed, *off), "packages": packages, "flows": flows}
        services.append(service.model_copy(update=changed))
    return tuple(services), problems


def _is_on(declared: Listener | Service | Flow, sound: Mapping[str, Any]) -> bool:
    if not declared.only_with:
        return True
    if declared.only_with == "remote":
        return has_peers(sound["given"].get("remote"))
    given: Any = sound["given"]
    for name in declared.only_with.split("."):
        given = given.get(name) if isinstance(given, Mapping) else getattr(given, name, None)
    # What is left as it is by default is there all the same: `acme={}` is Let's Encrypt.
    return bool(given) or (isinstance(declared, Service) and given is not None and given is not False)


def _segment_problems(sound: Mapping[str, Any]) -> Iterator[Problem]:
    segments: dict[str, model.Segment] = sound["segments"]
    known = sound["known_segments"]
    for needed in (model.MANAGEMENT, model.INTERNET):
        if known and needed not in known:
            yield Problem("segments", f"no segment '{needed}'", "add it: the kit can't do without")
    vlans: dict[int, str] = {}
    for name, segment in segments.items():
        if segment.vlan is not None and (other := vlans.setdefault(segment.vlan, name)) != name:
            yield Problem(
                f"segment '{name}' vlan", f"{segment.vlan} is that of '{other}' too", "give each segment its own"
            )
        for reached in segment.reaches:
            if reached not in known:
                yield Problem(f"segment '{name}' reaches", f"no segment '{reached}'", f"use {', '.join(sorted(known))}")


def _gateway_problems(sound: Mapping[str, Any]) -> Iterator[Problem]:
    segments: dict[str, model.Segment] = sound["segments"]
    gateways: dict[str, model.Gateway] = sound["gateways"]
    services = {service.name for service in sound["services"]}
    for name, gateway in gateways.items():
        place = f"gateway '{name}'"
        ports: dict[str, str] = {}
        for segment, network in gateway.networks.items():
            here = f"{place} network '{segment}'"
            if segment not in sound["known_segments"]:
                yield Problem(here, "no such segment", f"use {', '.join(sorted(sound['known_segments']))}")
                continue
            if network.trunk is not None and segment in segments and segments[segment].vlan is None:
                yield Problem(
                    here, f"on trunk {network.trunk} but segment '{segment}' has no vlan", "give the segment one"
                )
            if network.interface is not None and (other := ports.setdefault(network.interface, segment)) != segment:
                yield Problem(here, f"interface {network.interface} is that of '{other}' too", "one port a segment")
            yield from _address_problems(here, segment, network)
        for network in gateway.networks.values():
            if network.trunk is not None and network.trunk in ports:
                yield Problem(place, f"{network.trunk} is a trunk and the untagged port of '{ports[network.trunk]}'",
                              "leave the native VLAN unused")  # fmt: skip
        for needed in {model.MANAGEMENT, model.INTERNET} & sound["known_segments"]:
            if needed not in sound["known_networks"][name]:
                yield Problem(place, f"no network '{needed}'", "add it: every gateway needs one")
        for (one, first), (two, second) in combinations(sorted(gateway.networks.items()), 2):
            for a in first.prefixes:
                for b in second.prefixes:
                    if a.version == b.version and a.overlaps(b):
                        yield Problem(f"{place} network '{two}'", f"{b} overlaps {a} of '{one}'", "use another prefix")
        for left_out in set(gateway.without) - services:
            yield Problem(f"{place} without", f"no service '{left_out}'", f"use {', '.join(sorted(services))}")
    yield from _shared_address_problems(gateways)


def _address_problems(here: str, segment: str, network: model.Network) -> Iterator[Problem]:
    if segment != model.INTERNET:
        for family in ("ipv4", "ipv6"):
            if isinstance(getattr(network, family), str):
                yield Problem(f"{here} {family}", "only the internet side can take its address from others", "fix one")
        if network.upstream:
            yield Problem(here, "upstream is for the internet side only", "remove it")
        if network.router4 or network.router6:
            yield Problem(
                here, "a router is for the internet side only", "remove it: the gateway is this segment's router"
            )
        if not network.addresses:
            yield Problem(here, "no address", "add ipv4, ipv6 or both")
    for interface in (network.ipv4, network.ipv6):
        if interface is None or isinstance(interface, str):
            continue
        net, ip = interface.network, interface.ip
        unusable = {net.network_address} | ({net.broadcast_address} if ip.version == 4 else set())
        if ip in unusable:
            yield Problem(
                here, f"{ip} is no host's address in {net}", f"use one inside, such as {net.network_address + 1}"
            )
    for router, own in ((network.router4, network.ipv4), (network.router6, network.ipv6)):
        if router is None or own is None or isinstance(own, str):
            continue
        inside = router in own.network or router.is_link_local
        if not inside or router == own.ip:
            yield Problem(
                here, f"router {router} is outside {own.network} or the gateway itself", "name the provider's"
            )


def _shared_address_problems(gateways: Mapping[str, model.Gateway]) -> Iterator[Problem]:
    """Management must be told apart between gateways, since one operator reaches them all."""
    seen: dict[str, str] = {}
    for name, gateway in gateways.items():
        management = gateway.networks.get(model.MANAGEMENT)
        if management is None or not management.addresses:
            continue
        if (other := seen.setdefault(gateway.address, name)) != name:
            yield Problem(
                f"gateway '{name}'", f"{gateway.address} is the management address of '{other}' too", "use another"
            )


def _listener_problems(sound: Mapping[str, Any]) -> Iterator[Problem]:
    services: tuple[Service, ...] = sound["services"]
    closed = {(c.port, c.transport): c.reason for s in services for c in s.closed}
    taken: dict[tuple[int, str], str] = {}
    for service in services:
        for listener in service.listeners:
            place = f"service '{service.name}' listener '{listener.name}'"
            for segment in listener.reachable_from:
                if segment not in sound["known_segments"]:
                    yield Problem(
                        place, f"unknown segment '{segment}'", f"use {', '.join(sorted(sound['known_segments']))}"
                    )
            if reason := closed.get((listener.port, listener.transport)):
                yield Problem(place, f"port {listener.port} must stay closed: {reason}", "use the encrypted port")
            if (other := taken.setdefault((listener.port, listener.transport), place)) != place:
                yield Problem(place, f"port {listener.label} is that of {other} too", "use another port")


def _device_problems(sound: Mapping[str, Any]) -> Iterator[Problem]:
    seen: dict[tuple[str, str], str] = {}
    gateways: dict[str, model.Gateway] = sound["gateways"]
    for device in sound["devices"]:
        place = f"device '{device.name}'"
        facts = {"name": device.name, "hardware address": device.hardware_address, "address": device.address}
        for fact, value in facts.items():
            if value is None:
                continue
            scope = f"{device.gateway} {value}" if fact == "address" else str(value)
            if (fact, scope) in seen:
                yield Problem(place, f"{fact} {value} is that of '{seen[fact, scope]}' too", "each device has its own")
            seen[fact, scope] = device.name
        if device.authentication == "psk" and device.status != "revoked" and not sound["given"].get("psk"):
            yield Problem(place, "authenticates with a pre-shared key, and the site takes none", "give it psk=True")
        # of a gateway or network that is broken itself nothing can be said, and enough is
        gateway = gateways.get(device.gateway)
        broken = gateway is None and device.gateway in sound["known_gateways"]
        known = sound["known_networks"].get(device.gateway, ())
        if not broken and (gateway is None or device.segment in gateway.networks or device.segment not in known):
            yield from place_problems(device, gateways)


def place_problems(device: model.Device, gateways: Mapping[str, model.Gateway]) -> Iterator[Problem]:
    """What is wrong with where a device is: its gateway, its segment there, its address in that."""
    place = f"device '{device.name}'"
    if device.gateway not in gateways:
        yield Problem(place, f"unknown gateway '{device.gateway}'", "use a gateway of the site")
        return
    network = gateways[device.gateway].networks.get(device.segment)
    if network is None:
        yield Problem(place, f"gateway '{device.gateway}' has no segment '{device.segment}'", "use one it has")
    elif device.address and not any(device.address in p for p in network.prefixes):
        where = network.prefixes[0] if network.prefixes else f"'{device.segment}', which has no fixed prefix"
        yield Problem(place, f"{device.address} is outside {where}", "use an address of its segment")
    elif device.address and device.address in network.addresses:
        yield Problem(place, f"{device.address} is the gateway's own", "use another")
