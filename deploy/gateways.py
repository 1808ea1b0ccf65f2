"""The gateways of a site while a command works on several of them: one connection each, opened when it is needed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from deploy.remote import Remote, RemoteError, connected
from gatehouse.identity import Pki
from gatehouse.proof.channel import START, asking, opening
from gatehouse.proof.expect import GATEWAY
from gatehouse.site import Site
from roles.target import Target


class Gateways:
    """Use it as a context: its end closes the connections. `pki` is the site's."""

    def __init__(self, site: Site, pki: Pki) -> None:
        self.site, self.pki = site, pki
        self._open: dict[str, Remote] = {}
        self._lost: dict[str, RemoteError] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def remote(self, name: str) -> Remote:
        """A gateway's connection. Raises `RemoteError`, the same each time for one that is away."""
        if name in self._lost:
            raise self._lost[name]
        if name not in self._open:
            try:
                self._open[name] = self._stack.enter_context(connected(self.site, name))
            except RemoteError as error:
                self._lost[name] = error
                raise
        return self._open[name]

    def target(self, name: str) -> Target:
        """What a gateway has to be like, as the vault says now."""
        return Target(self.site, name, lambda: self.pki)

    def running(self, service: str) -> list[str]:
        """The names of the gateways that a service runs on."""
        return self.site.gateways_with(service)

    def of(self, service: str) -> Iterator[tuple[Remote, Target]]:
        """Those that a service runs on. Raises `RemoteError` at the first that is away."""
        for name in self.running(service):
            yield self.remote(name), self.target(name)


def probed(remote: Remote, probe: Mapping[str, Any]) -> dict[str, Any]:
    """What one probe meets that is made on the gateway itself; what it shows travels on standard input."""
    said = remote.run(f"exec python3 -I -c {shlex.quote(START)}", opening({}) + asking({GATEWAY: [probe]}))
    found: dict[str, Any] = json.loads(said.splitlines()[-1])["results"][GATEWAY][0]
    return found
