"""What the compliance suite asks of a gateway once, and ahead of its checks."""

from __future__ import annotations

import threading
import time

import pytest

from gatehouse.errors import GatehouseError
from tests.compliance import lanes
from tests.compliance.once import Memory, ahead, once


class Gateway:
    def __init__(self):
        self.memory, self.asked = Memory(), []

    @once
    def slow(self):
        self.asked.append("slow")
        time.sleep(0.2)
        return object()

    @once
    def lost(self):
        self.asked.append("lost")
        raise GatehouseError("no answer")


@once
def of_another_module(live):
    live.asked.append("another")
    return live.slow


def test_whichever_thread_asks_first_the_others_get_the_same_answer():
    gateway, answers = Gateway(), []
    threads = [threading.Thread(target=lambda: answers.append(gateway.slow)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, answers))) == 1
    assert gateway.asked == ["slow"]
    assert of_another_module(gateway) is of_another_module(gateway) is answers[0]
    assert gateway.asked == ["slow", "another"]
    assert Gateway().slow is not answers[0]


def test_an_error_is_told_to_everybody_who_asks():
    gateway = Gateway()
    for _ in range(2):
        with pytest.raises(GatehouseError, match="no answer"):
            _ = gateway.lost
    assert gateway.asked == ["lost"]


def test_what_is_asked_ahead_goes_on_after_an_error_and_in_its_order():
    gateway = Gateway()
    ahead(gateway, [(lambda live: live.lost, lambda live: live.slow, of_another_module)])
    of_another_module(gateway)
    _ = gateway.slow
    deadline = time.monotonic() + 5
    while len(gateway.asked) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(gateway.asked) == ["another", "lost", "slow"]


def test_of_the_lanes_only_what_is_wanted_is_asked():
    assert lanes.of(set()) == []
    assert lanes.of({"reach"}) == [[lanes.LANES[1]["reach"]]]
    assert sum(len(lane) for lane in lanes.of({"broker", "scans", "intake"})) == 3
    with pytest.raises(ValueError, match="no area 'brokers'"):
        lanes.delay("brokers")
    assert lanes.delay("broker") == 0 < lanes.delay("intake")
