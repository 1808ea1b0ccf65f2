"""What can go wrong with the lab, in one line for the operator."""

from __future__ import annotations

from gatehouse.errors import GatehouseError


class LabError(GatehouseError):
    """The lab can't be built, or not reached; the message says where, what and how to mend it."""
