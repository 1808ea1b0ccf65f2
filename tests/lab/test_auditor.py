"""What sslyze, an auditor that knows nothing of the kit, finds at the HTTPS front: each finding asserted by itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy.environments import environment
from gatehouse.site.pages import hosts
from tests.checkout import Checkout
from tests.lab.gateways import Gateway

pytestmark = pytest.mark.timeout(600)

FRONT = "10.10.20.1"
CONFIGURATION = "/etc/gatehouse/web/nginx.conf"
SCANS = (
    "certinfo", "sslv2", "sslv3", "tlsv1", "tlsv1_1", "tlsv1_2", "tlsv1_3", "compression", "early_data", "ems",
    "fallback", "heartbleed", "openssl_ccs", "reneg", "robot", "elliptic_curves",
)  # fmt: skip
# Mozilla's profile "intermediate" (version 5.7), of which a certificate with an ECDSA key leaves these.
INTERMEDIATE = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
}
NEWEST = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}

Findings = dict[str, dict[str, Any]]


def audited(name: str, folder: Path) -> Findings:
    """What it found of the host `name` at the front, by scan; every scan came to its end."""
    program = environment("sslyze", print, built="sslyze") / "sslyze"
    report = folder / f"{name}.json"
    command = [str(program), *(f"--{scan}" for scan in SCANS), "--mozilla_config", "disable"]
    command += ["--sni", name, "--json_out", str(report), f"{FRONT}:443"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (server,) = json.loads(report.read_text())["server_scan_results"]
    assert server["connectivity_status"] == "COMPLETED", server["connectivity_error_trace"]
    made = {scan: said for scan, said in server["scan_result"].items() if said["status"] != "NOT_SCHEDULED"}
    assert {scan: said["status"] for scan, said in made.items()} == dict.fromkeys(made, "COMPLETED")
    assert len(made) == len(SCANS)
    return {scan: said["result"] for scan, said in made.items()}


@pytest.fixture(scope="module")
def findings(lab_gateway: Gateway, here: Checkout, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Findings]:
    """Of each of the gateway's names."""
    lab_gateway.harden()
    folder = tmp_path_factory.mktemp("sslyze")
    found = {page.name: audited(page.name, folder) for page in hosts(here.site, "gateway")}
    assert found
    return found


def suites(found: Findings, version: str) -> set[str]:
    return {
        accepted["cipher_suite"]["name"] for accepted in found[f"{version}_cipher_suites"]["accepted_cipher_suites"]
    }


@pytest.mark.parametrize("version", ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"])
def test_an_old_protocol_is_refused(findings: dict[str, Findings], version: str) -> None:
    assert {name: suites(found, version) for name, found in findings.items()} == {name: set() for name in findings}


def test_of_tls_1_2_only_suites_of_mozillas_profile_are_accepted_and_one_is(findings: dict[str, Findings]) -> None:
    for name, found in findings.items():
        assert set() < suites(found, "tls_1_2") <= INTERMEDIATE, name


def test_tls_1_3_is_spoken_with_its_usual_suites(findings: dict[str, Findings]) -> None:
    for name, found in findings.items():
        assert set() < suites(found, "tls_1_3") <= NEWEST, name


@pytest.mark.parametrize(
    ("scan", "finding", "good"),
    [
        ("tls_compression", "supports_compression", False),
        ("tls_1_3_early_data", "supports_early_data", False),
        ("tls_extended_master_secret", "supports_ems_extension", True),
        ("tls_fallback_scsv", "supports_fallback_scsv", True),
        ("heartbleed", "is_vulnerable_to_heartbleed", False),
        ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection", False),
        ("session_renegotiation", "supports_secure_renegotiation", True),
        ("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos", False),
        ("robot", "robot_result", "NOT_VULNERABLE_RSA_NOT_SUPPORTED"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_weakness_is_not_found(findings: dict[str, Findings], scan: str, finding: str, good: object) -> None:
    assert {name: found[scan][finding] for name, found in findings.items()} == dict.fromkeys(findings, good)


def test_keys_are_agreed_on_curves_of_mozillas_profile(findings: dict[str, Findings]) -> None:
    for name, found in findings.items():
        curves = {curve["name"] for curve in found["elliptic_curves"]["supported_curves"]}
        assert set() < curves <= {"X25519", "secp256r1", "secp384r1"}, name


def test_the_chain_is_in_order_and_carries_no_anchor(findings: dict[str, Findings]) -> None:
    for name, found in findings.items():
        (chain,) = found["certificate_info"]["certificate_deployments"]
        assert chain["received_chain_has_valid_order"], name
        assert len(chain["received_certificate_chain"]) == 2, name
        leaf = chain["received_certificate_chain"][0]
        assert name in leaf["subject_alternative_name"]["dns_names"], name


def test_it_does_find_what_is_weak(lab_gateway: Gateway, here: Checkout, tmp_path: Path) -> None:
    """Its refusals mean something: an old protocol that is let in on purpose is seen."""
    lab_gateway.harden()
    lab_gateway.is_hardened = False
    weak = "s/ssl_protocols .*/ssl_protocols TLSv1.1 TLSv1.2;/; s/ssl_ciphers .*/ssl_ciphers ALL:@SECLEVEL=0;/"
    lab_gateway(f"sed -i '{weak}' {CONFIGURATION} && systemctl reload nginx && sleep 1")
    name = hosts(here.site, "gateway")[0].name
    found = audited(name, tmp_path)
    assert suites(found, "tls_1_1")
    assert suites(found, "tls_1_2") - INTERMEDIATE
