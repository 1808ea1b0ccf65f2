"""The examples of the documents that need no gateway, run as they are written; and what the same commands refuse."""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gatehouse.identity import Vault
from gatehouse.proof import results
from gatehouse.proof.results import Check, Run
from lab.state import State
from tests.checkout import Checkout, copied
from tests.documented import example
from tests.unit.machine import ROOT, Machine
from tests.unit.test_mud import mud_file, to_name

# What the documents have a site say before these commands are of use.
SAYS = """
    psk=True,
    updates=True,
    remote={
        "tunnels": {"gateway": {"ipv4": "10.10.90.1/24", "endpoint": "home.example.org"}},
        "peers": read_peers(Path(__file__).parent.parent / "peers" / "home.toml"),
    },
    alerts={
        "email": {"server": "smtp.example.org", "user": "gateway", "sender": "g@example.org", "to": ["a@example.org"]},
    },
    acme={"dns": {"server": "192.0.2.53", "key": "gatehouse", "algorithm": "HMAC-SHA256"}},
    services=declared(),"""
CSR = (
    "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout own.key -subj /CN=pump-02"
    " -out pump-02.csr 2>&1"
)
RUN = "2026-03-01T12:00:00+00:00"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A site that the five-minute start made, and that says what the documents want."""
    machine = Machine.new(tmp_path_factory.mktemp("made"))
    machine.did("mkdir ~/.ssh; ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519")
    written = example(
        "README.md", "./kit init home --address 10.10.20.1 --key ~/.ssh/id_ed25519.pub --uplink eth0 --trunk eth1"
    )
    assert "Next: ./kit trust --site home" in machine.did(f"{written} --lan eth2")
    file = machine.checkout / "inventories" / "group_data" / "home.py"
    text = file.read_text().replace("import Site,", "import Site, read_peers,")
    assert "    services=declared()," in text
    file.write_text(text.replace("    services=declared(),", SAYS.strip("\n")))
    machine.did("./kit ca.status --site home")  # makes the authorities
    return machine


@pytest.fixture
def home(made: Machine, tmp_path: Path) -> Machine:
    """That site, for one test."""
    folder = shutil.copytree(made.home.parent, tmp_path / "one")
    return Machine(folder / "checkout", folder / "home")


@pytest.fixture
def vault(home: Machine) -> Callable[[], Vault]:
    return lambda: Vault.open(home.vault, [home.identity])


def test_devices_are_enrolled_one_by_one_with_and_without_a_key_of_their_own(home: Machine) -> None:
    home.did(CSR)
    for line in (
        "invoke enroll --site home --name kitchen-01 --model esp32-sht31",
        "invoke enroll --site home --name kitchen-02 --model esp32-sht31"
        " --hardware-address 02:00:00:00:00:02 --address 10.10.10.52",
        "invoke enroll --site home --name pump-02 --model relay --csr pump-02.csr",
        "invoke enroll --site home --name sensor-07 --model avr --psk",
    ):
        assert home.did(example("devices.md", line)).startswith("1 enrolled, 0 were before, 0 refused: out/home/")
    bundles = home.checkout / "out" / "home"
    assert (bundles / "kitchen-01" / "key.pem").exists() and not (bundles / "pump-02" / "key.pem").exists()
    assert (bundles / "sensor-07" / "psk.key").exists()
    assert (
        home.did(example("pki.md", "./kit bundle --site home --name kitchen-01")) == "out/home/kitchen-01: up to date\n"
    )
    assert "nvs.bin" in home.did(example("devices.md", "invoke bundle --site home --name kitchen-01 --nvs"))
    assert (bundles / "kitchen-01" / "nvs.bin").exists()


def test_devices_are_enrolled_from_the_list_as_it_is_shown(home: Machine) -> None:
    (listed,) = re.findall(r"```csv\n(.*?)```", (ROOT / "docs" / "devices.md").read_text(), re.DOTALL)
    (home.checkout / "devices.csv").write_text(listed)
    home.did(CSR)
    line = example("devices.md", "invoke enroll --site home --from devices.csv")
    assert home.did(line).startswith("2 enrolled, 0 were before, 0 refused")
    assert home.did(line).startswith("0 enrolled, 2 were before, 0 refused")


def test_a_message_is_signed_and_verified_by_hand(home: Machine) -> None:
    home.did("./kit enroll --site home --name kitchen-01 --model esp32-sht31")
    topic, home_site = "devices/kitchen-01/telemetry/climate", ("lab", "home")
    written = example("messages.md", "echo '{\"temperature\": 21.5}' >content.json")
    home.did(written)
    home.did(
        example(
            "messages.md", f"./kit message.sign --site lab --topic {topic} --file content.json >message.bin", home_site
        )
    )
    verifying = example("messages.md", f"./kit message.verify --site lab --topic {topic} --file message.bin", home_site)
    said = home.did(verifying)
    assert "device    kitchen-01\n" in said and '{"temperature": 21.5}' in said
    home.did("sed -i s/21.5/99.9/ message.bin")
    refused = home.sh(verifying)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)


def test_a_token_is_printed_alone_and_its_key_is_replaced(home: Machine, vault: Callable[[], Vault]) -> None:
    issued = home.sh(example("programs.md", "./kit token.issue --site home --subject anna"))
    assert (issued.returncode, issued.stdout.count("."), issued.stdout.count("\n")) == (0, 2, 1), issued.stderr
    assert "gateway: for anna, until " in issued.stderr and issued.stdout.strip() not in issued.stderr
    before = {name: vault().get(name) for name in vault().names("api/jwt/")}
    rotated = home.did(example("programs.md", "./kit token.rotate --site home"))
    assert "a new key signs tokens; those of the former one are good until they end" in rotated
    assert before and before != {name: vault().get(name) for name in before}
    assert "a new key signs tokens" in home.did(example("programs.md", "./kit token.rotate --site home --at-once"))


def test_what_others_gave_goes_into_the_vault_and_is_not_shown(home: Machine, vault: Callable[[], Vault]) -> None:
    home.did('head -c 32 /dev/urandom | base64 >tsig.txt; echo "correct horse" >password.txt')
    kept = home.did(example("web.md", "./kit acme.key --site home < tsig.txt"))
    key = (home.checkout / "tsig.txt").read_text().strip()
    assert vault().get_text("acme/tsig") == key and key not in kept
    kept = home.did(example("alerts.md", "./kit alerts.password --site home") + " <password.txt")
    assert "smtp.example.org is in the vault" in kept and "horse" not in kept
    assert vault().get_text("alerts/email/password") == "correct horse"


def test_a_root_certificate_for_browsers_is_shown(home: Machine) -> None:
    home.did(example("web.md", "./kit vault.show --name pki/root/certificate --site home > home-root.pem"))
    said = home.did(example("web.md", "openssl x509 -in home-root.pem -noout -fingerprint -sha256"))
    assert said.startswith("sha256 Fingerprint=")


def test_a_peer_is_given_a_file_that_others_can_t_read(home: Machine) -> None:
    written = example("remote.md", "./kit wireguard.peer --site home --name laptop")
    assert home.did(written).startswith("wrote laptop.conf: ")
    file = home.checkout / "laptop.conf"
    assert file.stat().st_mode & 0o777 == 0o600 and "Endpoint = home.example.org:" in file.read_text()
    again = home.sh(written)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1), again.stderr


def test_a_manufacturer_s_description_is_taken(home: Machine) -> None:
    home.did("./kit enroll --site home --name bulb-01 --model bulb1000 --address 10.10.10.60")
    (home.checkout / "bulb1000.json").write_text(json.dumps(mud_file(to_name("updates.bulb.example.com"))))
    home.did("./kit vault.show --name pki/root/certificate --site home > manufacturer-ca.pem")
    line = example("network.md", "./kit mud.import bulb1000.json --site home --model bulb1000 --ca manufacturer-ca.pem")
    unasked = home.sh(line)
    assert unasked.returncode == 1 and "no terminal to ask on: nothing was changed" in unasked.stderr
    assert "updates.bulb.example.com" in unasked.stdout
    assert not (home.checkout / "inventories" / "destinations" / "home.toml").exists()
    assert "next: ./kit harden --site home" in home.did(f"{line} --yes")
    assert "updates.bulb.example.com" in (home.checkout / "inventories" / "destinations" / "home.toml").read_text()


def test_reports_are_signed_and_show_what_was_changed(home: Machine) -> None:
    begun = datetime.datetime.fromisoformat(RUN)
    run = Run("home", "1", started=begun, finished=begun + datetime.timedelta(minutes=1))
    run.add(Check("a.b", "A title", "gateway", "iot", "proven"))
    folder = results.new_folder(home.checkout / "reports", run)
    results.write(folder, run)
    name = ("NAME", "home")
    digest = home.did(example("proof.md", "./kit report.sign --site NAME", name)).rsplit(maxsplit=1)[-1]
    home.did(example("proof.md", "./kit report.key --site NAME", name) + " >report.pem")
    verifying = example("proof.md", "./kit report.verify --site NAME", name)
    with_head = example("proof.md", "./kit report.verify --site NAME --head DIGEST", name, ("DIGEST", digest))
    assert "home: unchanged: signed runs here: 1" in home.did(with_head)
    assert "home: unchanged" in home.did(f"{verifying} --key report.pem", GATEHOUSE_IDENTITY="/nowhere")
    (folder / "results.json").write_text("{}")
    found = home.sh(verifying)
    assert found.returncode == 1 and "home: FAILED" in found.stdout
    assert found.stderr.strip().endswith("results.json: was changed after the run was signed")


def test_the_fuses_of_a_chip_are_listed_in_their_order() -> None:
    line = example("firmware.md", "./kit firmware.fuses --chip esp32s3")
    done = Checkout(ROOT).invoke(*line.split()[1:])
    assert done.status == 0 and "burn-key" in done.out, done.text
    unknown = Checkout(ROOT).invoke("firmware.fuses", "--chip", "esp8266")
    assert (unknown.status, unknown.out, unknown.err.count("\n")) == (1, "", 1), unknown.text


def test_without_a_lab_of_machines_nothing_is_kept_nor_brought_back(tmp_path: Path) -> None:
    none = copied(tmp_path / "checkout", GATEHOUSE_LAB=f"none-{os.getpid()}")
    try:
        for task in ("lab.save", "lab.restore"):
            done = none.invoke(task)
            assert (done.status, done.out) == (1, ""), done.text
            assert done.err == f"lab {none.lab}-vm: isn't up (run 'invoke lab.up --vm')\n"
        listed = none.invoke(*example("lab.md", "./kit lab.status --vm").split()[1:])
        assert (listed.status, listed.err) == (1, "there is no lab (`invoke lab.up --vm` builds one)\n")
    finally:
        removed = none.invoke(*example("lab.md", "./kit lab.down --vm").split()[1:])
    assert removed.status == 0 and not State(f"{none.lab}-vm").directory.exists(), removed.text


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("acme.key --site home </dev/null", "0 bytes are no key"),
        ("acme.key --site home <<<secret!", "no key in base64"),
        ("alerts.password --site home </dev/null", "is no password"),
        ("bundle --site home --name nobody", "nobody"),
        ("enroll --site home", "name one device"),
        ("enroll --site home --name Kitchen --model esp32", "Kitchen"),
        ("firmware.rollout --site home --model relay --version 9.9 --share 50%", "`firmware.sign` makes it"),
        ("message.sign --site home --topic devices/nobody/telemetry/climate --file tasks.py", "nobody"),
        ("message.sign --site home --topic devices/nobody/telemetry/climate --file nowhere", "can't be read"),
        ("message.verify --site home --topic nonsense --file tasks.py", "it is not devices/NAME/telemetry/KIND"),
        ("mud.import nowhere.json --site home --model bulb1000", "nowhere.json"),
        ("report.key --site home", "none was signed yet"),
        ("report.sign --site home", "no reports"),
        ("report.verify --site home", "none was signed yet"),
        ("sabotage --site home --only plain-mqtt", "is no lab: nothing was broken"),
        ("sbom --site home", "`./kit trust --site home`"),
        ("sbom --site home --gateway nobody", "nobody"),
        ("test --tier nothing", "no tier 'nothing'"),
        ("token.issue --site home --subject anna --hours 25", "ask for up to 24 hours"),
        ("token.issue --site home --subject anna --gateway nobody", "nobody"),
        ("wireguard.remove --site home --name nobody", "nobody"),
    ],
)
def test_what_can_t_work_is_said_in_a_line_and_leaves_every_file_as_it_was(
    made: Machine, command: str, said: str
) -> None:
    before = files(made)
    done = made.sh(f"./kit {command}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert files(made) == before


def files(machine: Machine) -> dict[Path, bytes]:
    """Of the site, and what lies in the checkout's own folder."""
    places = [
        *machine.checkout.glob("inventories/**/*"),
        *machine.checkout.glob("reports/**/*"),
        *machine.checkout.iterdir(),
    ]
    return {path: path.read_bytes() for path in places if path.is_file() and path.suffix != ".lock"}
