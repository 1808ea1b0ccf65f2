"""The configuration of ESP-IDF for hardened devices: written into a project, and compared with what was built."""

from __future__ import annotations

from pathlib import Path

from gatehouse.identity.files import write_private
from gatehouse.updates.hardening import HardeningError, defaults, deviations


def write_defaults(path: Path, model: str, profile: str, chip: str, bluetooth: bool, replace: bool) -> str:
    """Write `sdkconfig.defaults`; says so in a line. Raises `HardeningError`."""
    text = defaults(model, profile, chip, bluetooth)
    if path.exists() and not replace:
        raise HardeningError(f"{path}: is there already; move it away, or add --yes to replace it")
    try:
        write_private(path, text.encode(), 0o644)
    except OSError as error:
        raise HardeningError(f"{path}: not written ({error.strerror}); name a file in the project's folder") from None
    return f"{path}: {profile} profile for {chip}; delete the project's sdkconfig, so that it is made anew from this"


def check(path: Path, profile: str, bluetooth: bool) -> list[str]:
    """What an sdkconfig has otherwise, a line each. Raises `HardeningError`."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise HardeningError(f"{path}: can't be read ({error.strerror}); name the project's sdkconfig") from None
    except ValueError:
        raise HardeningError(f"{path}: is no text; name the project's sdkconfig") from None
    try:
        return [f"{path}: {line}" for line in deviations(text, profile, bluetooth)]
    except HardeningError as error:
        raise HardeningError(f"{path}: {error}") from None
