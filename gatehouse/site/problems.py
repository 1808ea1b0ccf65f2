"""What is wrong with a site, said once, all of it, each with the place and the mend."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from gatehouse.errors import GatehouseError


@dataclass(frozen=True, order=True)
class Problem:
    """One thing to mend: the field, what is wrong with it, what to do, and the file once that is known."""

    field: str
    what: str
    mend: str
    file: str = ""

    def __str__(self) -> str:
        place = f"{self.file}: {self.field}" if self.file else self.field
        return f"{place}: {self.what} ({self.mend})"


class SiteError(GatehouseError):
    """A site that can't be used; `problems` holds every reason, one line each in `str()`."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def within(self, file: Path | str) -> SiteError:
        """The same problems, each that names no file yet placed in `file`."""
        return SiteError(p if p.file else replace(p, file=str(file)) for p in self.problems)
