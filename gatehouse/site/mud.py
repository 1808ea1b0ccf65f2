"""Reads a manufacturer's usage description (MUD, RFC 8520): what a device of a model needs on the internet.

Of it only connections that the device opens to single ports of named places become destinations. What the gateway does
itself (names, time), and what no device gets here (its neighbours, connections from outside), is shown and left out.
Anything that is not understood is an error: a list that is only half understood is none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gatehouse.errors import GatehouseError
from gatehouse.site.declaration import Transport
from gatehouse.site.egress import InternetName

LARGEST = 262_144  # bytes; those of manufacturers have a few thousand
DEEPEST = 24  # levels; RFC 8520's own have eleven
MOST = 256  # entries
# No domain of the internet: RFC 6761, RFC 6762, RFC 7686, RFC 8375, and ICANN's resolution 2024.07.29.06.
INSIDE = ("home.arpa", "internal", "invalid", "local", "localhost", "onion", "test")

# RFC 8520 §9.1: what stands in `from-device-policy`; the container's name, and those of older drafts.
_CONTAINERS = ("ietf-access-control-list:acls", "ietf-access-control-list:access-lists")
_SERVED = {"urn:ietf:params:mud:dns": "names", "urn:ietf:params:mud:ntp": "time"}
_LOCAL = ("manufacturer", "same-manufacturer", "model", "local-networks", "controller", "my-controller")
_NUMBERS: dict[int, Transport] = {6: "tcp", 17: "udp"}
_ICMP = (1, 58)
_name = TypeAdapter(InternetName)


class MudError(GatehouseError):
    """A description that can't be used: one line that says where, what, and the mend."""


@dataclass(frozen=True, order=True)
class Flow:
    """A connection that the device opens: a name or a network on the internet, one port there."""

    transport: Transport
    port: int
    name: str = ""
    network: str = ""


@dataclass(frozen=True)
class LeftOut:
    """An entry that opens nothing here, and why."""

    entry: str
    why: str


@dataclass(frozen=True)
class Description:
    """What a description says: where it is from, what the device is, what it needs, and what is left out of that."""

    url: str
    about: str
    model: str
    updated: str
    signature: str
    flows: tuple[Flow, ...]
    left_out: tuple[LeftOut, ...]


def parse(raw: bytes, file: str) -> Description:
    """The description in `raw`; `file` is for messages. Raises `MudError`."""
    return _Reader(file).description(raw)


class _Reader:
    def __init__(self, file: str) -> None:
        self._file = file

    def error(self, where: str, what: str, mend: str) -> MudError:
        place = f"{self._file}: {where}" if where else self._file
        return MudError(f"{place}: {what} ({mend})")

    def description(self, raw: bytes) -> Description:
        content = self._json(raw)
        mud = self._object(content, "ietf-mud:mud", "")
        if mud.get("mud-version") != 1:
            raise self.error(
                "mud-version", f"is {mud.get('mud-version')!r}, not 1", "ask the manufacturer for RFC 8520"
            )
        lists = self._lists(content)
        found: dict[Flow, None] = {}
        left: dict[LeftOut, None] = {}
        count = 0
        for direction in ("from-device-policy", "to-device-policy"):
            for name in self._named(mud, direction):
                if name not in lists:
                    raise self.error(direction, f"names the list {name!r}, which is not there", "it may be cut off")
                for entry in lists[name]:
                    count += 1
                    if count > MOST:
                        raise self.error(name, f"more than {MOST} entries", "a device needs few: ask the manufacturer")
                    result = self._entry(name, entry, direction.startswith("from"))
                    if isinstance(result, Flow):
                        found[result] = None
                    elif result is not None:
                        left[result] = None
        texts = {key: self._text(mud, key) for key in
                 ("mud-url", "systeminfo", "model-name", "last-update", "mud-signature")}  # fmt: skip
        return Description(
            url=texts["mud-url"],
            about=texts["systeminfo"],
            model=texts["model-name"],
            updated=texts["last-update"],
            signature=texts["mud-signature"],
            flows=tuple(sorted(found)),
            left_out=tuple(left),
        )

    def _json(self, raw: bytes) -> Mapping[str, Any]:
        if len(raw) > LARGEST:
            raise self.error("", f"has {len(raw)} bytes, at most {LARGEST}", "that is no device's description")
        depth = deepest = 0
        for byte in re.sub(rb'"(?:[^"\\]|\\.)*"', b"", raw):
            depth += (byte in b"[{") - (byte in b"]}")
            deepest = max(deepest, depth)
        if deepest > DEEPEST:
            raise self.error(
                "", f"is nested {deepest} levels deep, at most {DEEPEST}", "ask the manufacturer for another"
            )
        try:
            content = json.loads(raw.decode(), object_pairs_hook=self._unique)
        except (ValueError, RecursionError) as error:
            if isinstance(error, MudError):
                raise
            raise self.error("", f"is no JSON: {str(error)[:80]}", "download it once more") from None
        if not isinstance(content, dict):
            raise self.error("", "is no JSON object", "download it once more")
        return content

    def _unique(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = next(key for key in found if sum(key == other for other, _ in pairs) > 1)
            raise self.error("", f"says {twice[:60]!r} twice", "ask the manufacturer which counts")
        return found

    def _object(self, within: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
        value = within.get(key)
        if not isinstance(value, dict):
            what = "is missing" if value is None else "is no object"
            raise self.error(where, f"{key} {what}", "is it a MUD file (RFC 8520)?")
        return value

    def _list(self, within: Mapping[str, Any], key: str, where: str) -> list[Mapping[str, Any]]:
        value = within.get(key)
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise self.error(where, f"{key} is no list of objects", "is it a MUD file (RFC 8520)?")
        return value

    def _text(self, within: Mapping[str, Any], key: str) -> str:
        value = within.get(key, "")
        if not isinstance(value, str) or len(value) > 255 or not value.isprintable():
            raise self.error(key, "is no printable text of at most 255 characters", "ask the manufacturer for another")
        return value

    def _lists(self, content: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
        """The entries of each access list, in either spelling of the container."""
        there = [key for key in _CONTAINERS if key in content]
        if len(there) != 1:
            what = "has both spellings of" if there else "has no"
            raise self.error("", f"{what} {' and '.join(there) or _CONTAINERS[0]}", "is it a MUD file (RFC 8520)?")
        found: dict[str, list[Mapping[str, Any]]] = {}
        for number, acl in enumerate(self._list(self._object(content, there[0], ""), "acl", there[0]), start=1):
            name = acl.get("name", acl.get("acl-name"))
            if not isinstance(name, str) or name in found:
                raise self.error(there[0], f"list {number} has no name, or that of another", "ask the manufacturer")
            entries = acl.get("aces", acl.get("access-list-entries"))
            if not isinstance(entries, dict):
                raise self.error(name, "has no entries", "ask the manufacturer")
            found[name] = self._list(entries, "ace", name)
        return found

    def _named(self, mud: Mapping[str, Any], direction: str) -> Iterator[str]:
        """The names of the lists of a direction, each once: a list that is named again adds nothing."""
        if direction not in mud:
            return
        policy = self._object(self._object(mud, direction, "ietf-mud:mud"), "access-lists", direction)
        names = [e.get("name", e.get("acl-name")) for e in self._list(policy, "access-list", direction)]
        if not all(isinstance(name, str) for name in names):
            raise self.error(direction, "names a list without a name", "ask the manufacturer")
        yield from dict.fromkeys(map(str, names))

    def _entry(self, acl: str, entry: Mapping[str, Any], outwards: bool) -> Flow | LeftOut | None:
        label = entry.get("name", entry.get("rule-name", "?"))
        where = f"{acl} entry {str(label)[:60]!r}"
        actions = self._object(entry, "actions", where)
        if unknown := actions.keys() - {"forwarding", "logging"}:
            raise self.error(where, f"unknown action {min(unknown)!r}", "Gatehouse knows forwarding")
        action = str(actions.get("forwarding")).rpartition(":")[2]
        if action in ("drop", "reject"):
            return None  # what is not accepted is dropped anyway
        if action != "accept":
            raise self.error(where, f"unknown action {action!r}", "use accept, drop or reject")
        matches = self._object(entry, "matches", where)
        # Older drafts have a level more: l3 and l4.
        flat: dict[str, Any] = {}
        for key, value in matches.items():
            if not isinstance(value, dict):
                raise self.error(where, f"{key} is no object", "ask the manufacturer")
            flat |= value if key in ("l3", "l4") else {key: value}
        unknown = flat.keys() - {"ipv4", "ipv6", "tcp", "udp", "icmp", "ietf-mud:mud"}
        if unknown:
            raise self.error(where, f"unknown match {min(unknown)!r}", "Gatehouse can't tell what it would open")
        if not all(isinstance(value, dict) for value in flat.values()):
            raise self.error(where, "a match is no object", "ask the manufacturer")
        return self._match(f"{acl}: {str(label)[:60]}", where, flat, outwards)

    def _match(self, shown: str, where: str, flat: Mapping[str, Any], outwards: bool) -> Flow | LeftOut | None:
        if local := flat.get("ietf-mud:mud"):
            return self._local(shown, where, local) if outwards else None
        layers = [(key, flat[key]) for key in ("ipv4", "ipv6") if key in flat]
        if len(layers) != 1:
            raise self.error(where, "names no place on the internet, or several", "one ipv4 or ipv6 match an entry")
        family, layer = layers[0]
        transport = self._transport(where, flat, layer)
        if transport is None:
            return (
                LeftOut(shown, "ICMP: the firewall passes the messages that belong to a connection")
                if outwards
                else None
            )
        details = flat.get(transport, {})
        self._known(where, details, ("destination-port", "source-port", "ietf-mud:direction-initiated"))
        initiated = details.get("ietf-mud:direction-initiated", "from-device" if outwards else "")
        if initiated not in ("from-device", "to-device", ""):
            raise self.error(where, f"unknown direction {initiated!r}", "use from-device or to-device")
        if not outwards:
            # The other half of what the device opens needs no rule: answers belong to their connection.
            opened = initiated == "to-device"
            return LeftOut(shown, "connections from outside: no device takes any") if opened else None
        if initiated == "to-device":
            return None
        if "destination-port" not in details:
            raise self.error(where, "opens every port", "Gatehouse opens single ones: ask the manufacturer which")
        return self._place(where, family, layer, transport, self._port(where, details["destination-port"]))

    def _known(self, where: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
        if unknown := given.keys() - set(known):
            raise self.error(where, f"unknown match {min(unknown)!r}", "Gatehouse can't tell what it would open")

    def _local(self, shown: str, where: str, local: Mapping[str, Any]) -> LeftOut:
        self._known(where, local, _LOCAL)
        controller = local.get("controller")
        if isinstance(controller, str) and controller in _SERVED:
            return LeftOut(shown, f"{_SERVED[controller]}: the gateway serves its devices")
        what = ", ".join(sorted(local))
        return LeftOut(shown, f"{what}: on this site devices reach the gateway, and not each other")

    def _transport(self, where: str, flat: Mapping[str, Any], layer: Mapping[str, Any]) -> Transport | None:
        """TCP or UDP; None for ICMP."""
        said = [key for key in ("tcp", "udp", "icmp") if key in flat]
        protocol = layer.get("protocol")
        if protocol is not None and (not isinstance(protocol, int) or protocol not in (*_NUMBERS, *_ICMP)):
            raise self.error(where, f"unknown protocol {protocol!r}", "Gatehouse opens TCP (6) and UDP (17)")
        if len(said) > 1:
            raise self.error(where, f"matches {' and '.join(said)}", "one of them an entry")
        numbered = _NUMBERS.get(protocol) if protocol is not None else None
        if said == ["icmp"] or (protocol in _ICMP and not said):
            return None
        named: Transport | None = "tcp" if said == ["tcp"] else "udp" if said else None
        if named is None and numbered is None:
            raise self.error(where, "opens every protocol", "Gatehouse opens single ports: ask the manufacturer which")
        if named and protocol is not None and numbered != named:
            raise self.error(where, f"protocol {protocol} is not {named}", "ask the manufacturer which it is")
        return named or numbered

    def _port(self, where: str, given: Any) -> int:
        if isinstance(given, dict):
            self._known(where, given, ("operator", "port", "lower-port", "upper-port"))
            operator, port = given.get("operator", "eq"), given.get("port")
            lower, upper = given.get("lower-port"), given.get("upper-port")
            if port is None and lower is not None and lower == upper:
                port = lower
            if operator == "eq" and isinstance(port, int) and not isinstance(port, bool) and 1 <= port <= 65535:
                return port
        raise self.error(where, f"port {json.dumps(given)[:80]} is not a single one",
                         "Gatehouse opens single ports: ask the manufacturer which")  # fmt: skip

    def _place(self, where: str, family: str, layer: Mapping[str, Any], transport: Transport, port: int) -> Flow:
        network_key = f"destination-{family}-network"
        self._known(where, layer, ("ietf-acldns:dst-dnsname", network_key, "protocol"))
        name, network = layer.get("ietf-acldns:dst-dnsname"), layer.get(network_key)
        if (name is None) == (network is None):
            raise self.error(where, "leads everywhere, or to two places", "a name or a network: ask the manufacturer")
        if name is not None:
            try:
                known = _name.validate_python(str(name).lower().removesuffix("."))
            except ValidationError:
                raise self.error(
                    where, f"{str(name)[:80]!r} is no name on the internet", "ask the manufacturer"
                ) from None
            if any(f".{known}".endswith(f".{domain}") for domain in INSIDE):
                raise self.error(
                    where, f"'{known}' is no name on the internet", "a manufacturer can't know what is inside"
                )
            return Flow(transport, port, name=known)
        return Flow(transport, port, network=str(self._network(where, family, network)))

    def _network(self, where: str, family: str, given: Any) -> IPv4Network | IPv6Network:
        try:
            network = ip_network(str(given))
        except ValueError:
            raise self.error(where, f"{str(given)[:60]!r} is no network", "ask the manufacturer") from None
        if network.version != (4 if family == "ipv4" else 6):
            raise self.error(where, f"{network} is not of {family}", "ask the manufacturer")
        if not network.is_global or network.is_multicast:
            raise self.error(
                where, f"{network} is no address of the internet", "a manufacturer can't know what is inside"
            )
        if network.prefixlen < (16 if network.version == 4 else 32):
            raise self.error(where, f"{network} is too much of the internet", "ask the manufacturer for names")
        return network
