"""Where the package of an engine comes from that Debian hasn't got: a folder of the operator's, pinned by SHA-256."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pyinfra.api.exceptions import PyinfraError

from gatehouse.site import Site

FOLDER = "GATEHOUSE_PACKAGES"


class PackageRefused(PyinfraError):
    """A package that is not the one that the site pins; pyinfra prints it as one line."""


def local(site: Site) -> Path | None:
    """The site's package for its engine; None where the site names none, or it is not there.

    Raises `PackageRefused` when a file of that name is there and is not the one that was pinned.
    """
    package = site.database.package
    if package is None or not os.environ.get(FOLDER):
        return None
    path = Path(os.environ[FOLDER]) / package.file
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PackageRefused(f"{path}: {error.strerror} (mend its owner and mode)") from None
    if found != package.sha256:
        raise PackageRefused(
            f"{path}: its SHA-256 is {found}, the site pins {package.sha256}: not installed (get the package anew, or"
            " pin this one once you know where it comes from)"
        )
    return path


def why_not(site: Site) -> str:
    """Why there is none, and what to do."""
    package = site.database.package
    if package is None:
        return "database: the site names no package for it (add `package` with file and sha256)"
    folder = os.environ.get(FOLDER)
    return f"{package.file} is not in {folder}" if folder else f"{FOLDER} names no folder that holds {package.file}"
