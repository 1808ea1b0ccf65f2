"""testinfra over the agent that is there: its commands cost no SSH channel, no sudo and no login shell each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from testinfra.backend.base import BaseBackend, CommandResult
from testinfra.host import Host

from gatehouse.proof.channel import ProbeError
from gatehouse.proof.observation import Observation

Run = Callable[[tuple[str, ...]], Observation]


class OverAgent(BaseBackend):
    """Has a gateway's agent run the commands, each time, as root. Raises `ProbeError` where it can't."""

    NAME = "agent"

    def __init__(self, gateway: str, run: Run) -> None:
        super().__init__(gateway)
        self._run = run

    def run(self, command: str, *args: str, **_: Any) -> CommandResult:
        """Runs shell, with its arguments quoted."""
        asked = self.get_command(command, *args)
        seen = self._run(("sh", "-c", asked))
        if "status" not in seen.result:
            raise ProbeError(f"{self.hostname}: {asked}: {seen}")
        result = seen.result
        return self.result(result["status"], self.encode(asked), result["output"], result["error"])

    def get_encoding(self) -> str:
        """The agent has read what was printed as this."""
        return "utf-8"


def host(gateway: str, run: Run) -> Host:
    """testinfra's view of a gateway."""
    backend = OverAgent(gateway, run)
    found = Host(backend)
    backend.set_host(found)
    return found
