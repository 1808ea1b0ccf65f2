"""Waivers: checks of a site that may fail for a while, why, who answers for it, and what is done instead."""

from __future__ import annotations

from datetime import date

from pydantic import Field

from gatehouse.site.declaration import Declaration


class Waiver(Declaration):
    """Stands in a site by the id of its check. Good to the end of the day `expires` (UTC).

    `compensated_by` is the id of another check, which must be proven for the waiver to count.
    """

    reason: str = Field(min_length=10)
    owner: str = Field(min_length=1)
    expires: date
    compensated_by: str = Field(min_length=1)
