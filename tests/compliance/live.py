"""A gateway as the suite sees it: one SSH connection, positions in its segments, and what was seen from them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from gatehouse.errors import GatehouseError
from gatehouse.site import Site
from tests.compliance.played import Played


class Gateways:
    """The gateways of a site, each connected to when it is first asked for."""

    def __init__(self, site: Site, begin: Callable[[Live], None]) -> None:
        """`begin` is told of each as soon as it is connected to."""
        self._site, self._begin = site, begin
        self._open: dict[str, Live] = {}
        self._lost: dict[str, GatehouseError] = {}
        self._stack = ExitStack()

    def __getitem__(self, name: str) -> Live:
        if name in self._lost:
            raise self._lost[name]
        if name not in self._open:
            try:
                live = self._stack.enter_context(Live(self._site, name))
                _ = live.agent
            except GatehouseError as error:
                self._lost[name] = error
                raise
            self._open[name] = live
            self._begin(live)
        return self._open[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


class Live(Played):
    """One gateway, with all that the suite may ask of it."""
