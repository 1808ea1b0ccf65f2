"""Small feeds of vulnerabilities, in the forms in which Debian's security tracker and OSV publish them."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

# Three entries as the tracker has them for debsecan: names; by package (S: source, urgency, R: remote, F: fixed in the
# suite; fixed in unstable; other versions that are not affected); binary packages by source.
BOOKWORM = """VERSION 1
CVE-2023-44487,,The HTTP/2 protocol allows a denial of service (server resource consum ...
CVE-2024-6387,,A security regression (CVE-2006-5051) was discovered in OpenSSH's serv ...
CVE-2022-27943,,libiberty/rust-demangle.c in GNU GCC 11.2 allows stack consumption in  ...

nghttp2,0,SHRF,1.57.0-1,1.43.0-1+deb11u1 1.52.0-1+deb12u1
openssh,1,SHRF,1:9.7p1-7,1:9.2p1-2+deb12u3
gcc-12,2,SL  ,,

nghttp2,libnghttp2-14
openssh,openssh-server
gcc-12,libstdc++6
"""
# An entry as OSV has it.
JINJA = {
    "schema_version": "1.4.0",
    "id": "GHSA-h5c8-rqwp-cp95",
    "aliases": ["CVE-2024-22195"],
    "summary": "Jinja vulnerable to HTML attribute injection when passing user input as keys to xmlattr filter",
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "Jinja2"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "3.1.3"}]}],
        }
    ],
}


def packed(text: str) -> bytes:
    """A feed as the tracker sends it."""
    return zlib.compress(text.encode())


def mirrored(folder: Path, suite: str = "bookworm", feed: str = BOOKWORM) -> str:
    """A folder with the feed of a suite."""
    folder.mkdir(exist_ok=True)
    (folder / suite).write_bytes(packed(feed))
    return str(folder)


def one_entry(package: str, fixed_in: str) -> str:
    """A feed with one vulnerability of a source package, fixed in the suite by that version."""
    return f"VERSION 1\nCVE-2099-0001,,Made up\n\n{package},0,SHRF,{fixed_in},\n\n{package},{package}\n"


def archive(*entries: dict[str, Any], suffix: str = "json") -> bytes:
    """What OSV publishes of PyPI, with these entries."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for number, entry in enumerate(entries):
            made.writestr(f"{number}.{suffix}", json.dumps(entry))
    return out.getvalue()
