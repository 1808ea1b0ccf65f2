"""Asks several gateways the same thing at once: what does not answer soon is left out, or all is waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from gatehouse.errors import GatehouseError

Answer = TypeVar("Answer")
AT_ONCE = 8
"""Gateways that are waited for at a time: each is a connection, and work on this machine."""


class Unanswered(GatehouseError):
    """Several gateways that could not be asked, a line each."""


def each(names: Iterable[str], ask: Callable[[str], Answer]) -> list[Answer]:
    """What each answers, in their order, however they answer; a few are asked at a time, and all are.

    Raises a gateway's own error, or `Unanswered` with those of all that have one.
    """
    wanted = list(names)
    if len(wanted) == 1:
        return [ask(wanted[0])]
    answers: list[Answer] = []
    failed: list[GatehouseError] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for asked in [pool.submit(ask, name) for name in wanted]:
            try:
                answers.append(asked.result())
            except GatehouseError as error:
                failed.append(error)
    if len(failed) == 1:
        raise failed[0]
    if failed:
        raise Unanswered("\n".join(map(str, failed)))
    return answers


def at_once(
    gateways: Iterable[str], ask: Callable[[str], Answer], seconds: float
) -> tuple[dict[str, Answer], dict[str, str]]:
    """What each gateway answers, and of the others why there is nothing, after `seconds` at the most."""
    names = list(dict.fromkeys(gateways))
    answers: dict[str, Answer] = {}
    reasons: dict[str, str] = {}

    def one(gateway: str) -> None:
        try:
            answers[gateway] = ask(gateway)
        except GatehouseError as error:
            reasons[gateway] = str(error)

    # Not waited for beyond that: one that hangs in a connection ends with this program.
    threads = [threading.Thread(target=one, args=[gateway], daemon=True) for gateway in names]
    end = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0, end - time.monotonic()))
    answered = {name: answers[name] for name in names if name in answers}
    silent = {name: f"{name}: no answer within {seconds:.0f} s" for name in names if name not in answered}
    return answered, {name: reasons.get(name, why) for name, why in silent.items()}
