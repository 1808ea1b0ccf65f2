"""Which engine it is."""

from __future__ import annotations

import one
import two
from common import Settings


def engine(settings: Settings, private: bool = False) -> one.Engine | two.Engine:
    """The engine of the settings."""
    return two.Engine(settings, private) if settings.engine == "influxdb2" else one.Engine(settings, private)
