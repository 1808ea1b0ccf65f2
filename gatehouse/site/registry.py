"""Reads the device registry, `inventories/devices/SITE.toml`: public facts only."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from gatehouse.site.problems import Problem, SiteError


def read(path: Path) -> list[dict[str, Any]]:
    """The `[[device]]` entries as they stand, not yet validated: `Site` does that. Raises `SiteError`."""
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except FileNotFoundError:
        return []
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SiteError([Problem("registry", f"is no TOML: {error}", "mend that line", str(path))]) from None
    except OSError as error:
        raise SiteError(
            [Problem("registry", f"can't be read: {error.strerror}", "check the file", str(path))]
        ) from None
    unknown = sorted(content.keys() - {"device"})
    if unknown:
        raise SiteError([Problem(unknown[0], "unknown key", "a registry holds [[device]] tables only", str(path))])
    devices = content.get("device", [])
    if not isinstance(devices, list) or not all(isinstance(entry, dict) for entry in devices):
        raise SiteError([Problem("device", "is no list of tables", "write [[device]] above each device", str(path))])
    return devices
