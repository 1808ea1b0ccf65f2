"""The playbooks: each step is a command that there is, that takes what it is given; some are run here."""

from __future__ import annotations

import datetime
import re
import shlex
from pathlib import Path

import pytest
from cryptography import x509
from invoke.exceptions import ParseError
from invoke.parser import Parser

import tasks
from gatehouse.identity.pki import Pki, PkiError
from gatehouse.identity.store import SecretStore
from tests.documented import example
from tests.unit.machine import INIT, ROOT, Machine

DOCUMENT = (ROOT / "docs" / "playbooks.md").read_text()
TITLES = (
    "A device was stolen",
    "A credential leaked",
    "A rogue device",
    "A gateway was taken over",
    "An authority has",
)
# Which test runs a step, by command and options, and what it says there. Those of this file run lines of the document.
LAB, UNIT = "tests/lab", "tests/unit"
HERE = f"{UNIT}/test_playbooks.py"
RUN = {
    "alerts": (f"{LAB}/test_alerts.py", 'invoke("alerts", "--json")'),
    "audit": (f"{LAB}/test_audit.py", 'invoke("audit", "--json"'),
    "bundle --name": (HERE, "./kit bundle --site home --name kitchen-01"),
    "ca.drop --force --role": (HERE, 'startswith("./kit ca.")'),
    "ca.move-to-backup-key": (HERE, "./kit ca.move-to-backup-key --site home"),
    "ca.rollover --issue --role": (HERE, 'startswith("./kit ca.")'),
    "ca.rollover --role": (HERE, 'startswith("./kit ca.")'),
    "ca.status": (HERE, "./kit ca.status --site home"),
    "credentials": (f"{LAB}/test_rotation.py", 'invoke("credentials", "--json")'),
    "data.erase --device": (f"{LAB}/test_database.py", 'invoke("data.erase", "--device"'),
    "devices": (f"{LAB}/test_devices.py", 'invoke("devices", "--json")'),
    "drift": (f"{LAB}/test_audit.py", 'invoke("drift"'),
    "harden": ("tests/vm/test_lynis.py", 'invoke("harden", "--site", SITE'),
    "incident --device": (f"{LAB}/test_devices.py", 'invoke("incident", "--device"'),
    "quarantine --name": (f"{LAB}/test_intake.py", 'invoke("quarantine", "--name"'),
    "refused": (f"{LAB}/test_devices.py", 'invoke("refused", "--json")'),
    "release --name": (f"{LAB}/test_devices.py", 'invoke("release", "--name"'),
    "revoke --name": (f"{LAB}/test_devices.py", 'invoke("revoke", "--name"'),
    "rotate --dry": (HERE, "./kit rotate --site home --dry"),
    "rotate --only": (f"{LAB}/test_rotation.py", 'invoke("rotate", "--only"'),
    "token.rotate --at-once": (HERE, "./kit token.rotate --site home --at-once"),
    "trust": (f"{UNIT}/test_tasks.py", 'invoke("trust", "--site", "home"'),
    "vault.remove-recipient": (f"{UNIT}/test_vault_drill.py", "vault.remove-recipient"),
    # As `./kit verify` does: the same suite, of each hardened lab.
    "verify": (f"{UNIT}/test_tasks.py", "nothing_to_change_asks_nothing_and_verifies"),
}


def steps() -> list[list[str]]:
    """Every command of the playbooks, without `./kit`."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", DOCUMENT, re.DOTALL)).splitlines()
    inline = re.findall(r"`(\./kit [^`]+)`", DOCUMENT)
    return [shlex.split(line, comments=True)[1:] for line in (*blocks, *inline) if line.startswith("./kit ")]


def parsed(step: list[str]) -> None:
    Parser(contexts=tasks.namespace.to_contexts()).parse_argv(step)


def test_there_is_a_playbook_for_each_of_five_incidents_with_steps() -> None:
    chapters = re.split(r"^## ", DOCUMENT, flags=re.MULTILINE)[1:]
    assert [any(c.startswith(title) and "```sh" in c for c in chapters) for title in TITLES] == [True] * 5


@pytest.mark.parametrize("step", steps(), ids=" ".join)
def test_each_step_is_a_command_that_takes_what_it_is_given(step: list[str]) -> None:
    parsed(step)
    with pytest.raises(ParseError):
        parsed([*step, "--no-such-option"])


def test_each_step_is_run_by_a_test() -> None:
    def options(step: list[str]) -> list[str]:
        return sorted(word for word in step if word.startswith("--") and word != "--site")

    assert {" ".join([step[0], *options(step)]) for step in steps()} == set(RUN)
    for step, (file, words) in RUN.items():
        # The table is no test that runs something.
        text = (ROOT / file).read_text().partition("def test_each_step_is_run")[2 if file == HERE else 0]
        assert words in text, step


def test_what_needs_no_gateway_does_as_written_and_a_takeover_replaces_all_that_a_gateway_knew(tmp_path: Path) -> None:
    machine = Machine.new(tmp_path)
    machine.did(INIT)
    machine.did("./kit ca.status --site home")
    machine.did("./kit enroll --site home --name kitchen-01 --model esp32")
    (ended,) = re.findall(r"```sh\n([^`]*ca\.drop[^`]*)```", DOCUMENT)
    alone = [line for line in ended.splitlines() if line.startswith("./kit ca.")]
    said = [machine.did(line) for line in alone]
    assert "is made and trusted" in said[0] and " issues; trusted still: " in said[1] and "key destroyed" in said[2]
    moved = machine.did(example("playbooks.md", "./kit ca.move-to-backup-key --site home"))
    assert "./kit harden --site home" in moved
    ended_tokens = machine.did(example("playbooks.md", "./kit token.rotate --site home --at-once"))
    assert "a new key signs tokens" in ended_tokens
    (taken,) = re.findall(r"```sh\n([^`]*ca\.move-to-backup-key[^`]*)```", DOCUMENT)
    replaced = "".join(machine.did(f"{line} --dry") for line in taken.splitlines() if " rotate " in line)
    everything = machine.did("./kit rotate --site home --dry")
    assert sorted(set(everything.splitlines()) - set(replaced.splitlines())) == []
    assert "devices/kitchen-01/hmac" in machine.did("./kit credentials --site home")
    assert "kitchen-01" in machine.did("./kit bundle --site home --name kitchen-01")


def test_a_devices_authority_that_has_ended_issues_nothing_and_its_roll_over_mends_that() -> None:
    now = datetime.datetime(2025, 6, 1, tzinfo=datetime.UTC)
    pki = Pki(SecretStore(), "home", "home.arpa", ["127.0.0.0/8"], clock=lambda: now).ensure()
    old = pki.device("kitchen-01")
    now += datetime.timedelta(days=6 * 365)
    with pytest.raises(PkiError):
        pki.device("kitchen-02")
    rollover = pki.rollover("devices")
    former = rollover.issuing
    rollover.prepare()
    assert rollover.switch() and rollover.drop(force=True) == [former]
    new = x509.load_pem_x509_certificate(pki.device("kitchen-02").certificate_pem)
    (issuer, _root) = x509.load_pem_x509_certificates(pki.trust_chain_for_devices())
    new.verify_directly_issued_by(issuer)
    assert issuer.not_valid_before_utc <= now <= issuer.not_valid_after_utc
    with pytest.raises(ValueError, match="."):
        x509.load_pem_x509_certificate(old.certificate_pem).verify_directly_issued_by(issuer)
