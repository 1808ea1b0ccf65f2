"""What is asked once of a gateway, whichever thread asks first, and ahead of the checks that want to know."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import update_wrapper
from typing import Any

SLOW = 2.0  # times as long as elsewhere


class Memory:
    """What has been asked of one gateway, and what came of it: an answer, or the error that there is none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[object, Future[Any]] = {}

    def of(self, key: object, ask: Callable[[], Any]) -> Any:
        """The answer to `ask`, which is called once; whoever comes second waits for it."""
        with self._lock:
            mine = key not in self._made
            made = self._made.setdefault(key, Future())
        if mine:
            try:
                made.set_result(ask())
            except BaseException as error:  # whoever waits is told, too
                made.set_exception(error)
        return made.result()

    def give(self, key: object, answer: Any) -> None:
        """Notes an answer that was had in another way."""
        made: Future[Any] = Future()
        made.set_result(answer)
        with self._lock:
            self._made[key] = made

    def forget(self, which: Callable[[object], bool]) -> None:
        """Forgets the answers to these keys: who asks next asks anew."""
        with self._lock:
            for key in [key for key in self._made if which(key)]:
                del self._made[key]


class once:  # noqa: N801  as functools.cached_property
    """Makes a method a property, and leaves a function with one argument a function, whose answer for a gateway is
    worked out once. Its error is as lasting. The gateway, or the first argument, has a `Memory` as `memory`."""

    def __init__(self, ask: Callable[[Any], Any]) -> None:
        self._ask = ask
        update_wrapper(self, ask)  # type: ignore[arg-type]

    def __call__(self, live: Any) -> Any:
        return live.memory.of(self._ask, lambda: self._ask(live))

    def forget(self, live: Any) -> None:
        """Has it asked anew when it is wanted next."""
        live.memory.forget(lambda key: key is self._ask)

    def give(self, live: Any, answer: Any) -> None:
        """Notes an answer that was had in another way."""
        live.memory.give(self._ask, answer)

    def __get__(self, live: Any, _: type | None = None) -> Any:
        return self if live is None else self(live)


def ahead(live: Any, lanes: Iterable[Sequence[Callable[[Any], object]]]) -> None:
    """Has questions asked in the background: the lanes at the same time, what is in a lane in turn.

    A gateway that takes long for one thing takes too long for several: there it is one lane after the other.
    """

    def work(lane: Sequence[Callable[[Any], object]]) -> None:
        for ask in lane:
            with suppress(Exception):  # the check that wants to know meets it
                ask(live)

    def begin() -> None:
        several = list(lanes)
        with suppress(Exception):  # as above
            if live.agent.pace > SLOW:
                several = [[ask for lane in several for ask in lane]]
        for lane in several:
            threading.Thread(target=work, args=(lane,), daemon=True).start()

    threading.Thread(target=begin, daemon=True).start()
