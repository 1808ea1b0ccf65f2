"""A container of Debian's own programs, to which a role's files are shown as they will lie on a gateway."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lab import engine, images
from roles.rendering import Directory, File, _archive


@dataclass(frozen=True)
class Verdict:
    """How a command ended, and what it printed on both channels."""

    status: int
    output: str

    def __bool__(self) -> bool:
        return self.status == 0


class Judge:
    """Runs shell in a container as root."""

    def __init__(self, container: Any) -> None:
        self._container = container

    def run(self, shell: str) -> Verdict:
        """Runs a command line."""
        status, output = self._container.exec_run(["sh", "-c", shell])
        return Verdict(status, output.decode())

    def accepts(self, entries: Iterable[File | Directory], check: str) -> Verdict:
        """Runs a role's `check` on its files, staged as `lifecycle.files` stages them."""
        return self.run(f"STAGED=$(mktemp -d); export STAGED; {self._unpack(entries, '$STAGED')} {{ {check}; }}")

    def install(self, *entries: File | Directory) -> None:
        """Puts files in their final place."""
        done = self.run(self._unpack(entries, "/") + " true")
        assert done, done.output

    def _unpack(self, entries: Iterable[File | Directory], where: str) -> str:
        archive = _archive([entry for entry in entries if isinstance(entry, File)])
        return f"printf %s {archive} | base64 -d | tar -x -p -C {where} --no-overwrite-dir || exit 99;"


@contextmanager
def judging() -> Iterator[Judge]:
    """A judge for one test: what it changes is gone afterwards. Nothing in it has a network."""
    client = engine.connect()
    image = images.field_image(client, print)
    # Ends by itself, should the tests be killed.
    container = client.containers.run(
        image, ["sleep", "900"], detach=True, auto_remove=True, network_mode="none", init=True, tmpfs={"/run": ""}
    )
    try:
        yield Judge(container)
    finally:
        container.remove(force=True)
