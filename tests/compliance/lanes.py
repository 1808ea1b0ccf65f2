"""What takes time to know of a gateway, and what of it may be asked at the same time.

A lane is asked in its order, beside the others. Plays at the broker are all in one: some are the same client's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.compliance.alerts import seen as alerts
from tests.compliance.coap import seen as coap_seen
from tests.compliance.egress import floods, forged, grants, neighbours, resolvers, routers
from tests.compliance.handshakes import early
from tests.compliance.handshakes import seen as handshakes
from tests.compliance.identities import sessions
from tests.compliance.isolation import isolation, quarantined_play
from tests.compliance.live import Live
from tests.compliance.log import searched as log
from tests.compliance.refusals import refusals
from tests.compliance.remote import tunnel
from tests.compliance.system import archived, verified
from tests.compliance.updates import seen as updates
from tests.compliance.web import guessed, rehearsed, seen

Ask = Callable[[Live], object]


LANES: tuple[dict[str, Ask], ...] = (
    {
        "broker": lambda live: live.broker,
        "programs": lambda live: live.programs,
        "psk": lambda live: live.keyed,
        "sessions": sessions,
        "quarantined": quarantined_play,
        "intake": lambda live: live.intake,
    },
    {"reach": lambda live: live.reach, "isolation": isolation, "tunnel": tunnel},
    {"scans": lambda live: live.scans},
    {
        "egress": grants,
        "neighbours": neighbours,
        "resolvers": resolvers,
        "routers": routers,
        "forged": forged,
        "refusals": refusals,
        "floods": floods,
    },
    {"web": seen, "updates": updates, "handshakes": handshakes, "early": early, "logins": guessed},
    {"renewal": rehearsed},
    {"alerts": alerts},
    {"coap": coap_seen},
    {"packages": verified, "archives": archived, "log": log},
)
_SLOW = (
    "early",
    "logins",
    "packages",
    "archives",
    "log",
    "alerts",
    "tunnel",
    "neighbours",
    "floods",
    "isolation",
    "sessions",
    "quarantined",
    "intake",
    "renewal",
    "scans",
)


def of(areas: set[str]) -> list[Sequence[Ask]]:
    """The lanes without what nobody wants to know."""
    return [wanted for lane in LANES if (wanted := [ask for area, ask in lane.items() if area in areas])]


def delay(area: str) -> int:
    """The place of an area among those that are known late; 0 for those that are known soon. Raises `ValueError`."""
    if not any(area in lane for lane in LANES):
        raise ValueError(f"asks: there is no area '{area}'")
    return 1 + _SLOW.index(area) if area in _SLOW else 0
