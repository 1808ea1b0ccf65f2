"""What the suite's own device reports, well signed and otherwise, and how the intake must take each."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from gatehouse.messages import LARGEST, Reason, sign
from gatehouse.proof.credentials import PROBE
from gatehouse.proof.plays import Report

FIELD = "proof"
KIND = "proof"
TOPIC = f"devices/{PROBE}/telemetry/{KIND}"
TWO_DAYS_MS = 172_800_000
GOOD = "good"


@dataclass(frozen=True)
class Reports:
    """`messages` by case, in the order of publishing; `marks` is what each has in `FIELD`, so that it can be found."""

    messages: Mapping[str, Report]
    marks: Mapping[str, str]


REFUSED: dict[str, tuple[Reason, str]] = {
    "tampered": ("bad-signature", "a byte of the content was changed on the way"),
    "replayed": ("replay", "the same bytes were published again"),
    "number-used-twice": ("replay", "its sequence number was used before"),
    "unsigned": ("form-not-allowed", "JSON without a signature"),
    "of-another": ("bad-signature", "it was signed with another device's key"),
    "moved": ("bad-signature", "it was signed for another topic"),
    "old": ("too-old", "its time is two days ago"),
    "early": ("from-the-future", "its time is in two days"),
    "oversize": ("too-large", "it is longer than a message may be"),
    "wrong-topic": ("wrong-topic", "the broker takes the topic, and it means nothing"),
}
"""For each case the reason that is counted, and what is wrong with the message."""


def made(key: bytes, others_key: bytes, now_ms: int, json_form: bool) -> Reports:
    """The messages of a run. `json_form`: whether the site takes JSON, which must be signed then."""
    nonce, sequence = os.urandom(6).hex(), now_ms << 12
    marks = {case: f"{case} {nonce}" for case in (GOOD, *REFUSED)}

    def content(case: str) -> bytes:
        return json.dumps({FIELD: marks[case]}).encode()

    def signed(case: str, number: int, *, own: bytes = key, topic: str = TOPIC, later_ms: int = 0) -> bytes:
        return sign(own, topic, content(case), number=1, sequence=sequence + number, time_ms=now_ms + later_ms)

    good = signed(GOOD, 0)
    tampered = signed("tampered", 1)
    # What is signed says something else, and the same length of it.
    other = tampered.replace(b"tampered", b"tamperee")
    marks["tampered"] = f"tamperee {nonce}"
    messages = {
        GOOD: (TOPIC, good),
        "tampered": (TOPIC, other),
        "replayed": (TOPIC, good),
        "number-used-twice": (TOPIC, signed("number-used-twice", 0, later_ms=1)),
        "unsigned": (TOPIC, content("unsigned")),
        "of-another": (TOPIC, signed("of-another", 2, own=others_key)),
        "moved": (TOPIC, signed("moved", 3, topic=f"{TOPIC}-2")),
        "old": (TOPIC, signed("old", 4, later_ms=-TWO_DAYS_MS)),
        "early": (TOPIC, signed("early", 5, later_ms=TWO_DAYS_MS)),
        "oversize": (TOPIC, signed("oversize", 6) + bytes(LARGEST)),
        "wrong-topic": (f"{TOPIC}/in/the/cellar", signed("wrong-topic", 7)),
    }
    return Reports(messages, marks)


def reason(case: str, json_form: bool) -> Reason:
    """What is counted for a case that is to be refused."""
    return "bad-signature" if json_form and case == "unsigned" else REFUSED[case][0]


def numbers(text: str) -> dict[str, float]:
    """The intake's numbers out of its file, by name and, of what was refused, by reason."""
    line = r'^gatehouse_intake_(?:(\w+)|refused_total\{reason="([a-z-]+)"\}) ([0-9.e+]+)$'
    found = re.findall(line, text, re.MULTILINE)
    return {name or given: float(value) for name, given, value in found}
