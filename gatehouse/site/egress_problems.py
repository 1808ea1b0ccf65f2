"""What is wrong with the destinations of a site."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gatehouse.site import model
from gatehouse.site.egress import RESOLVER_PORTS, Destination
from gatehouse.site.problems import Problem


def destination_problems(sound: Mapping[str, Any]) -> Iterator[Problem]:
    """Of the destinations that are sound on their own: who may use them, and where they lead."""
    domain = str(sound["given"].get("domain", ""))
    for name, destination in sound["destinations"].items():
        place = f"destination '{name}'"
        for segment in destination.segments:
            if segment not in sound["known_segments"]:
                yield Problem(place, f"unknown segment '{segment}'", "use a segment of the site")
        yield from _device_problems(place, destination, sound["devices"], bool(sound["given"].get("devices")))
        yield from _place_problems(place, destination, sound["gateways"])
        for asked in destination.names:
            if domain and (asked == domain or asked.endswith(f".{domain}")):
                yield Problem(place, f"{asked} is a name of the site's own", "a destination is on the internet")
        used_by = {
            d.segment for d in sound["devices"] if d.model in destination.models or d.name in destination.devices
        }
        for segment in sorted({*destination.segments, *used_by}):
            here = sound["segments"].get(segment)
            if here and here.own_resolver and destination.port in RESOLVER_PORTS:
                yield Problem(place, f"port {destination.port} is for names, which '{segment}' asks the gateway for",
                              f"remove it, or own_resolver from '{segment}'")  # fmt: skip


def _device_problems(
    place: str, destination: Destination, devices: list[model.Device], complete: bool
) -> Iterator[Problem]:
    by_name = {device.name: device for device in devices}
    for name in destination.devices:
        if name not in by_name and (devices or not complete):
            yield Problem(place, f"no device '{name}'", "use a device of the registry")
    for device in devices:
        listed = device.model in destination.models or device.name in destination.devices
        if listed and device.status == "active" and device.hardware_address is None and device.address is None:
            yield Problem(place, f"device '{device.name}' can't be told from others: no hardware address, no address",
                          "give it hardware_address in the registry")  # fmt: skip


def _place_problems(place: str, destination: Destination, gateways: Mapping[str, model.Gateway]) -> Iterator[Problem]:
    for gateway in gateways.values():
        for segment, network in gateway.networks.items():
            inside = [a for a in destination.addresses for p in network.prefixes
                      if segment != model.INTERNET and a.version == p.version and a.overlaps(p)]  # fmt: skip
            if inside:
                yield Problem(place, f"{inside[0]} is inside segment '{segment}'",
                              "a destination is on the internet; for segments use `reaches`")  # fmt: skip
