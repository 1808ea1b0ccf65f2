"""CoAP over DTLS as a site wants it, for devices that have no MQTT."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field

from gatehouse.site.declaration import Declaration
from gatehouse.site.problems import Problem

SERVICE = "coap"


class Coap(Declaration):
    """How many DTLS sessions there may be at a time, and for how long one may say nothing."""

    max_sessions: int = Field(default=500, ge=1, le=5_000)
    idle_seconds: int = Field(default=900, ge=30, le=86_400)


def table(given: Any) -> Any:
    """`True` is a table with nothing in it, `False` none."""
    return ({} if given else None) if isinstance(given, bool) else given


def coap_problems(sound: Mapping[str, Any]) -> Iterator[Problem]:
    """A gateway with the endpoint needs the broker that it hands messages to."""
    if sound["given"].get(SERVICE) in (None, False):
        return
    for name, gateway in sound["gateways"].items():
        if "mosquitto" in gateway.without and SERVICE not in gateway.without:
            yield Problem(
                f"gateway '{name}' without",
                "CoAP hands messages to the broker",
                f"leave 'mosquitto' on it, or take '{SERVICE}' off it, too",
            )
