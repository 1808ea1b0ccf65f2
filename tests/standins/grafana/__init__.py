"""A stand-in for Grafana's Debian package: not Grafana, but the paths, files and answers that the kit relies on.

What its maker documents of them ("Configure Grafana", "Provisioning", "HTTP API", "Grafana CLI") is in `program`;
everything that a person sees of it says STAND-IN. That the real one behaves so is not proven by it: the same tests run
against the real package where GATEHOUSE_PACKAGES names a folder with a file `grafana_*.deb`.

    python3 -m tests.standins.grafana FILE        builds it; the same content makes the same file
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

VERSION = "9.4.0~standin1"
_HERE = Path(__file__).parent
_SOURCES = ("program.py", "pages.py", "source.py")
_CONTROL = f"""Package: grafana
Version: {VERSION}
Architecture: all
Maintainer: Gatehouse's tests <nobody@invalid>
Depends: python3, python3-yaml
Description: STAND-IN for Grafana, for tests alone
 It is not Grafana: it answers as far as Gatehouse asks.
"""
_POSTINST = """#!/bin/sh
set -e
getent group grafana >/dev/null || groupadd --system grafana
id grafana >/dev/null 2>&1 || useradd --system --gid grafana --no-create-home --shell /bin/false grafana
mkdir -p /var/log/grafana /var/lib/grafana
chown -R grafana:grafana /var/log/grafana /var/lib/grafana
chown -Rh root:grafana /etc/grafana
chmod 640 /etc/grafana/grafana.ini
"""
_UNIT = """[Unit]
Description=STAND-IN for Grafana
After=network-online.target

[Service]
EnvironmentFile=/etc/default/grafana-server
User=grafana
Group=grafana
WorkingDirectory=/usr/share/grafana
ExecStart=/usr/share/grafana/bin/grafana server --homepath=/usr/share/grafana --config=${CONF_FILE} --packaging=deb

[Install]
WantedBy=multi-user.target
"""


def digest() -> str:
    """What changes with anything that goes into the package."""
    parts = [_CONTROL, _POSTINST, _UNIT, *((_HERE / name).read_text() for name in _SOURCES)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def build(path: Path) -> Path:
    """Writes the package; it comes to be in one step."""
    files = {
        "DEBIAN/control": (_CONTROL, 0o644),
        "DEBIAN/conffiles": ("/etc/grafana/grafana.ini\n/etc/default/grafana-server\n", 0o644),
        "DEBIAN/postinst": (_POSTINST, 0o755),
        # As its maker's: everybody gets in with admin and admin, from everywhere.
        "etc/grafana/grafana.ini": ("[server]\nhttp_addr =\nhttp_port = 3000\n", 0o640),
        "etc/default/grafana-server": ("CONF_FILE=/etc/grafana/grafana.ini\n", 0o644),
        "lib/systemd/system/grafana-server.service": (_UNIT, 0o644),
        "usr/share/grafana/bin/grafana": ((_HERE / "program.py").read_text(), 0o755),
        **{f"usr/share/grafana/bin/{name}": ((_HERE / name).read_text(), 0o644) for name in _SOURCES[1:]},
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, (content, mode) in files.items():
            place = Path(folder) / "root" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content)
            place.chmod(mode)
        for place in (Path(folder) / "root").rglob("*"):
            if place.is_dir():
                place.chmod(0o755)
        made = Path(folder) / "made.deb"
        command = ["dpkg-deb", "--root-owner-group", "--uniform-compression", "--build", f"{folder}/root", str(made)]
        subprocess.run(command, env={**os.environ, "SOURCE_DATE_EPOCH": "1"}, capture_output=True, check=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.new")
        beside.write_bytes(made.read_bytes())
        beside.rename(path)
    return path
