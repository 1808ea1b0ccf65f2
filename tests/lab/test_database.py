"""The database on a live gateway: backed up, lost, brought back; a device's data erased; accounts put right."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploy import backupnotes
from tests.lab.gateways import Gateway

pytestmark = pytest.mark.timeout(900)

STEWARD = "python3 -B /usr/lib/gatehouse/database"
DEVICES = ("erased-01", "kept-02")
# As the intake writes: over TLS, with its own credential, which may name its user. Two points a device, a minute apart.
WRITE = """
import base64, http.client, socket, ssl, sys, time
user, _, secret = open("/etc/gatehouse/database/intake.credential").read().strip().rpartition(":")
tls = ssl.create_default_context(cafile="/etc/gatehouse/database/ca.crt")
connection = http.client.HTTPSConnection("influxdb.lab.internal", 8086)
connection.sock = tls.wrap_socket(socket.create_connection(("127.0.0.1", 8086)), server_hostname=connection.host)
both = base64.b64encode(((user or "intake") + ":" + secret).encode()).decode()
headers, now = {"Authorization": f"Basic {both}"}, time.time_ns()
times = [now - minutes * 60 * 10**9 for minutes in (1, 2)]
lines = [f"telemetry,device={device},kind=climate temperature=21.5 {t}" for device in sys.argv[1:] for t in times]
connection.request("POST", "/write?db=gatehouse", "\\n".join(lines), headers)
print(connection.getresponse().status)
"""


def write(gateway: Gateway, *devices: str) -> None:
    assert gateway(f"python3 -c '{WRITE}' {' '.join(devices)}") == "204\n"


def forget(gateway: Gateway) -> None:
    """What other tests, and an earlier run in the same lab, have left of these devices."""
    for device in DEVICES:
        gateway(f"{STEWARD} erase {device}")


def stored(gateway: Gateway) -> dict[str, int]:
    return {device: int(gateway(f"{STEWARD} count {device}")) for device in DEVICES}


def settled(gateway: Gateway) -> bool:
    return gateway(f"{STEWARD} check") == "as declared\n"


def test_what_was_backed_up_comes_back_on_the_same_gateway_and_on_a_fresh_one(gateway: Gateway, tmp_path: Path) -> None:
    forget(gateway)
    write(gateway, *DEVICES)
    assert stored(gateway) == {"erased-01": 2, "kept-02": 2}
    all_devices = len(gateway(f"{STEWARD} devices").split())
    file = tmp_path / "lab.data"
    made = gateway.checkout.invoke("data.backup", str(file))
    assert made.status == 0, made.text
    assert b"kept-02" not in file.read_bytes() and file.stat().st_mode & 0o777 == 0o600
    noted = backupnotes.last(gateway.checkout.site, gateway.host)
    assert noted is not None and noted.wrong(datetime.now(UTC), 1) == ""
    written = file.read_bytes()
    assert (noted.file, noted.size, noted.sha256) == (str(file), len(written), hashlib.sha256(written).hexdigest())
    gateway.stays_converged()

    erased = gateway.checkout.invoke("data.erase", "--device", "erased-01", "--site", "lab")
    assert erased.status == 0 and "2 points of erased-01 deleted; a query finds none" in erased.out, erased.text
    assert stored(gateway) == {"erased-01": 0, "kept-02": 2}

    refused = gateway.checkout.invoke("data.restore", str(file), "--site", "lab")
    assert refused.status == 1 and "--yes replaces it" in refused.err, refused.text
    assert stored(gateway) == {"erased-01": 0, "kept-02": 2}
    back = gateway.checkout.invoke("data.restore", str(file), "--site", "lab", "--yes")
    assert back.status == 0 and f"{all_devices} devices" in back.out, back.text
    assert stored(gateway) == {"erased-01": 2, "kept-02": 2}
    gateway.stays_converged()

    gateway.renew()
    gateway.converge()
    assert stored(gateway) == {"erased-01": 0, "kept-02": 0}
    back = gateway.checkout.invoke("data.restore", str(file), "--site", "lab")
    assert back.status == 0, back.text
    assert stored(gateway) == {"erased-01": 2, "kept-02": 2}
    assert settled(gateway)
    gateway.stays_converged()


def test_a_backup_that_is_none_leaves_the_database_as_it_is(gateway: Gateway, tmp_path: Path) -> None:
    write(gateway, *DEVICES)
    before = stored(gateway)
    file = tmp_path / "lab.data"
    made = gateway.checkout.invoke("data.backup", str(file))
    assert made.status == 0, made.text
    for content in (b"", b"no backup", file.read_bytes()[:-20]):
        (tmp_path / "broken").write_bytes(content)
        refused = gateway.checkout.invoke("data.restore", str(tmp_path / "broken"), "--site", "lab", "--yes")
        assert refused.status == 1 and "nothing was restored" in refused.err, refused.text
        assert "Traceback" not in refused.text
    for content in ("", "no tar"):
        assert gateway.ask(f"printf '{content}' | {STEWARD} restore").returncode == 1
    assert stored(gateway) == before
    assert settled(gateway)


def test_a_backup_that_can_t_be_written_leaves_the_database_running(gateway: Gateway) -> None:
    write(gateway, *DEVICES)
    before = stored(gateway)
    refused = gateway.checkout.invoke("data.backup", "/proc/lab.data")
    assert refused.status == 1 and "no backup was made" in refused.err, refused.text
    assert "Traceback" not in refused.text
    gateway.until("systemctl is-active influxdb.service")
    gateway.until(f"{STEWARD} check | grep -qx 'as declared'")
    assert stored(gateway) == before


def test_a_full_disk_under_the_database_refuses_what_it_can_t_keep_and_keeps_what_it_had(gateway: Gateway) -> None:
    folder = "/var/lib/influxdb"
    gateway(f"systemctl stop influxdb && mount -t tmpfs -o size=32m,mode=0700,uid=influxdb,gid=influxdb none {folder}")
    try:
        gateway("systemctl start influxdb", timeout=120)
        gateway(f"{STEWARD} settle")
        write(gateway, "kept-02")
        filled = f"test $(df --output=avail {folder} | tail -1) = 0"
        gateway(f"head -c 64M /dev/zero > {folder}/filling 2>/dev/null; {filled}")
        # More than what is left of a block that is in use: 500, or 400 where the series are new.
        assert gateway(f"python3 -c '{WRITE}' $(seq -f filler-%g 3000)").strip() in ("400", "500")
        # The engine goes on refusing until it is started anew.
        gateway(f"rm {folder}/filling; systemctl restart influxdb; {STEWARD} settle", timeout=120)
        write(gateway, "erased-01")
        assert stored(gateway) == {"erased-01": 2, "kept-02": 2}
    finally:
        gateway(f"systemctl stop influxdb; umount {folder}; systemctl start influxdb; {STEWARD} settle", timeout=120)


def test_a_database_that_was_wiped_has_its_administrator_before_anybody_can_ask(gateway: Gateway) -> None:
    gateway("systemctl stop influxdb && rm -rf /var/lib/influxdb/* && systemctl start influxdb", timeout=120)
    gateway.until("ss -H -t -l -n 'sport = :8086' | grep -q .")
    assert gateway.checkout.deploy().status == 0
    assert settled(gateway)
    gateway.stays_converged()
