"""Roll-outs of firmware as a site wants them."""

from __future__ import annotations

from pydantic import Field

from gatehouse.site.declaration import Declaration


class Firmware(Declaration):
    """When a roll-out of firmware is halted: when of those that had their turn more than so many percent failed.

    `halt_from` devices at least have to fail, or all there are. One without a report for `silent_after` is silent.
    """

    halt_above_percent: int = Field(default=10, ge=0, le=100)
    halt_from: int = Field(default=2, ge=1)
    silent_after: str = Field(default="26h", pattern=r"^[1-9][0-9]{0,3}[mhdw]$")
