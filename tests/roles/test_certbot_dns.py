"""Challenges over DNS (DNS-01, RFC 2136), in earnest: Debian's certbot, pebble as the CA, knot as name server."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from gatehouse.site.web import DnsUpdates
from roles.base.version import ROOT
from roles.certbot.deploy import KEY
from roles.rendering import template

DNS, ACME, ROOTS = 15353, 15400, 15401
NAME = "home.example.test"
SECRET = base64.b64encode(bytes(range(32))).decode()
RUN = """
import json, sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
loader = SourceFileLoader("certificates", sys.argv[1])
program = module_from_spec(spec_from_loader("certificates", loader))
loader.exec_module(program)
print(json.dumps(program.renew(program.Settings(json.load(sys.stdin), sys.argv[2]))))
"""


@dataclass
class Bench:
    """A folder in which the gateway's program runs."""

    folder: Path

    def renew(self, secret: str) -> list[str]:
        """What the timer runs, with that key for updates; its problems."""
        updates = DnsUpdates(server="127.0.0.1", port=DNS, key="gatehouse", patience=1)  # type: ignore[arg-type]
        key = self.folder / "tsig.ini"
        key.write_bytes(template("certbot", KEY, dns=updates, secret=secret).content)
        key.chmod(0o600)
        settings = {
            "directory": f"https://localhost:{ACME}/dir",
            "staging": f"https://localhost:{ACME}/dir",
            "email": None,
            "renew_at": 2 / 3,
            "dns": {"credentials": str(key), "patience": 1},
            "webroot": "/nonexistent",
            "trust": str(self.folder / "ca.pem"),
            "anchors": str(self.folder / "roots.pem"),
            "folder": str(self.folder / "etc/letsencrypt"),
            "state": str(self.folder / "state"),
            "names": {NAME: [{"folder": str(self.folder / "used" / NAME), "group": "root", "enables": [],
                              "reloads": [], "proves": []}]},
        }  # fmt: skip
        run = ["/usr/bin/python3", "-c", RUN, str(ROOT / "roles/certbot/gateway.py"), str(self.folder)]
        done = subprocess.run(run, input=json.dumps(settings), capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        problems: list[str] = json.loads(done.stdout.splitlines()[-1])
        return problems


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def bench(programs: Callable[..., None], tmp_path: Path) -> Iterator[Bench]:
    """A name server that takes signed updates of one zone, and a CA that asks it."""
    programs("knotd", "knot")
    programs("pebble", "pebble")
    programs("certbot", "python3-certbot-dns-rfc2136")
    for folder in ("used", "knot"):
        (tmp_path / folder).mkdir()
    (tmp_path / "example.test.zone").write_text(
        "$ORIGIN example.test.\n$TTL 60\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n"
    )
    (tmp_path / "knot.conf").write_text(
        f"server:\n  rundir: {tmp_path}\n  listen: 127.0.0.1@{DNS}\n"
        f"database:\n  storage: {tmp_path}/knot\n"
        f"key:\n  - id: gatehouse\n    algorithm: hmac-sha256\n    secret: {SECRET}\n"
        "acl:\n  - id: update\n    key: gatehouse\n    action: update\n"
        f"zone:\n  - domain: example.test\n    storage: {tmp_path}\n    file: example.test.zone\n    acl: update\n"
    )
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    make += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    make += ["-keyout", str(tmp_path / "ca.key"), "-out", str(tmp_path / "ca.pem")]
    subprocess.run(make, check=True, capture_output=True)
    pebble = {"listenAddress": f"127.0.0.1:{ACME}", "managementListenAddress": f"127.0.0.1:{ROOTS}"}
    pebble |= {"certificate": str(tmp_path / "ca.pem"), "privateKey": str(tmp_path / "ca.key")}
    (tmp_path / "pebble.json").write_text(json.dumps({"pebble": {**pebble, "httpPort": 80, "tlsPort": 443}}))
    environment = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}
    commands = (
        ["knotd", "-c", str(tmp_path / "knot.conf")],
        ["pebble", "-config", str(tmp_path / "pebble.json"), "-dnsserver", f"127.0.0.1:{DNS}"],
    )
    with ExitStack() as stack, (tmp_path / "said").open("wb") as said:
        for command in commands:
            process = stack.enter_context(subprocess.Popen(command, env=environment, stdout=said, stderr=said))
            stack.callback(process.terminate)
        until = time.monotonic() + 20
        while not all(map(answers, (DNS, ACME, ROOTS))):
            assert time.monotonic() < until, (tmp_path / "said").read_text()
            time.sleep(0.1)
        ask = ["curl", "-sS", "--cacert", str(tmp_path / "ca.pem"), f"https://localhost:{ROOTS}/roots/0"]
        (tmp_path / "roots.pem").write_bytes(subprocess.run(ask, capture_output=True, check=True).stdout)
        yield Bench(tmp_path)


def test_a_name_gets_its_certificate_over_dns_and_a_wrong_key_for_updates_is_named(bench: Bench) -> None:
    (problem,) = bench.renew(base64.b64encode(bytes(32)).decode())
    assert problem.startswith(f"{NAME}: the name server refuses the update"), problem
    assert not (bench.folder / "used" / NAME).exists()
    assert bench.renew(SECRET) == []
    chain = bench.folder / "used" / NAME / "chain.pem"
    show = ["openssl", "x509", "-in", str(chain), "-noout", "-ext", "subjectAltName", "-issuer"]
    shown = subprocess.run(show, capture_output=True, text=True, check=True).stdout
    assert f"DNS:{NAME}" in shown and "Pebble" in shown
    assert bench.renew(SECRET) == []
