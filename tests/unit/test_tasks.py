"""The tasks of `./kit` that need no gateway: new sites, pinned host keys, and what they refuse."""

from __future__ import annotations

import os
import pty
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from unittest import mock

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from invoke import Context

from commands import common, labs, proof, sites
from deploy import newsite, reportseals, run, trust
from gatehouse.errors import GatehouseError
from gatehouse.identity import Vault
from gatehouse.site import Site, load
from tests.checkout import Checkout, copied


def new_key(path: Path) -> Path:
    """Write an SSH key pair; returns the path of its public half."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    path.write_bytes(private)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    path.with_suffix(".pub").write_bytes(public + b" operator\n")
    return path.with_suffix(".pub")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A copy of the checkout whose operator has a home of their own."""
    return copied(tmp_path / "checkout", XDG_CONFIG_HOME=str(tmp_path / "home"), GATEHOUSE_IDENTITY="")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return new_key(tmp_path / "id_ed25519")


def there(checkout: Checkout) -> set[str]:
    """The files of every site, and what the operator's home has."""
    folders = (checkout.root / "inventories", Path(checkout.environment["XDG_CONFIG_HOME"]))
    return {str(path) for folder in folders for path in folder.rglob("*") if path.is_file()}


def init(checkout: Checkout, key: Path | str, *options: str, name: str = "home", address: str = "192.0.2.1") -> str:
    """`invoke init` with the options; returns what it printed. It must succeed."""
    done = checkout.invoke("init", name, "--address", address, "--key", str(key), *options)
    assert done.status == 0, done.text
    return done.out


def site(checkout: Checkout, name: str = "home") -> Site:
    return load(name, checkout.root)


def test_init_writes_a_site_that_loads_and_a_vault_that_its_identity_opens(checkout: Checkout, key: Path) -> None:
    said = init(checkout, key, "--user", "admin", "--uplink", "wan0", "--trunk", "lan0")
    home = site(checkout)
    assert home.gateways["gateway"].contact.user == "admin"
    assert home.gateways["gateway"].address == "192.0.2.1"
    assert home.gateways["gateway"].networks["internet"].interface == "wan0"
    assert home.gateways["gateway"].networks["iot"].trunk == "lan0"
    assert home.gateways["gateway"].networks["iot"].addresses[0] == ip_address("10.10.10.1")
    assert home.ssh.keys == (key.read_text().strip(),)
    assert home.domain == "home.internal"

    identity = Path(checkout.environment["XDG_CONFIG_HOME"]) / "gatehouse" / "home.age"
    assert stat.S_IMODE(identity.stat().st_mode) == 0o600
    assert Vault.open(checkout.root / "inventories/vaults/home.age", [identity]).names() == []
    assert "wrote inventories/home\n" in said
    assert f"wrote {identity}\n" in said
    assert identity.read_text().splitlines()[-1] not in said


def test_every_option_of_init_is_in_the_site(checkout: Checkout, key: Path) -> None:
    options = {
        "--uplink-address": "203.0.113.5/24",
        "--router": "203.0.113.1",
        "--lan": "lan1",
        "--domain": "plant.example",
        "--gateway": "north",
        "--prefix": "172.20.0.0/16",
    }
    init(checkout, key, *(word for pair in options.items() for word in pair), "--no-ipv6", name="plant-2")
    networks = site(checkout, "plant-2").gateways["north"].networks
    assert str(networks["internet"].ipv4) == "203.0.113.5/24"
    assert str(networks["internet"].router4) == "203.0.113.1"
    assert networks["internal"].interface == "lan1"
    assert str(networks["management"].ipv4) == "172.20.20.1/24"
    assert {network.ipv6 for network in networks.values()} == {None}
    assert site(checkout, "plant-2").domain == "plant.example"


def test_two_new_sites_share_no_ipv6_prefix(checkout: Checkout, key: Path) -> None:
    init(checkout, key)
    init(checkout, key, name="cabin")
    first, second = (site(checkout, name).gateways["gateway"].networks["iot"].ipv6 for name in ("home", "cabin"))
    assert first != second


def refused(checkout: Checkout, *arguments: str) -> str:
    """What `invoke init` says on refusing; it leaves every file as it was."""
    before = there(checkout)
    done = checkout.invoke("init", *arguments)
    assert done.status == 1, done.text
    assert "Traceback" not in done.err
    assert there(checkout) == before
    return done.err.strip()


def test_a_site_that_exists_is_refused_and_left_as_it_is(checkout: Checkout, key: Path) -> None:
    init(checkout, key)
    before = (checkout.root / "inventories/group_data/home.py").read_text()
    said = refused(checkout, "home", "--address", "192.0.2.9", "--key", str(key))
    assert said == "init: inventories/home exists (choose another name, or remove that site's files)"
    assert (checkout.root / "inventories/group_data/home.py").read_text() == before


def test_an_identity_that_exists_is_never_replaced(checkout: Checkout, key: Path) -> None:
    identity = Path(checkout.environment["XDG_CONFIG_HOME"]) / "gatehouse" / "home.age"
    identity.parent.mkdir(parents=True)
    identity.write_text("precious\n")
    assert "there is an identity already" in refused(checkout, "home", "--address", "192.0.2.1", "--key", str(key))
    assert identity.read_text() == "precious\n"


def refused_answers(checkout: Checkout, **answers: str) -> str:
    """What writing a site says on refusing its answers; it leaves every file as it was."""
    before = there(checkout)
    given = {"name": "home", "address": "192.0.2.1", **answers}
    with pytest.raises(GatehouseError) as refusal, mock.patch.dict(os.environ, checkout.environment):
        newsite.write(newsite.Answers(**given), checkout.root)
    assert there(checkout) == before
    return str(refusal.value)


@pytest.mark.parametrize("name", ["lab", "all", "Home", "ho_me", "../home", "-", "", "home.py", "a" * 64])
def test_a_name_that_no_site_can_have_is_refused(checkout: Checkout, key: Path, name: str) -> None:
    said = refused_answers(checkout, name=name, key=str(key))
    assert said == f"init: '{name}' is no name for a site (use lower-case letters, digits and hyphens; not lab)"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("key", "/no/such/key.pub", "/no/such/key.pub: no such file (name your .pub file"),
        ("key", "ssh-ed25519 AAAA", "is no SSH public key"),
        ("prefix", "10.10.0.0/33", "10.10.0.0/33 is no IPv4 prefix"),
        ("prefix", "10.10.10.0/24", "10.10.10.0/24 is too small"),
        ("prefix", "fd00::/48", "fd00::/48 is no IPv4 prefix"),
        ("uplink_address", "203.0.113.5", "203.0.113.5 is no IPv4 prefix (use a length from 8 to 30)"),
        ("router", "203.0.113.300", "router4"),
        ("uplink", "an-interface-name-too-long", "interface"),
        ("user", "Root!", "user"),
        ("gateway", "north gate", "north gate"),
        ("domain", "not a domain", "domain"),
    ],
)
def test_a_bad_answer_is_refused_in_one_line_and_nothing_is_left(
    checkout: Checkout, key: Path, field: str, value: str, words: str
) -> None:
    said = refused_answers(checkout, **{"key": str(key), field: value})
    assert words in said
    assert len(said.splitlines()) == 1, said


def test_after_a_refusal_the_right_answers_are_taken(checkout: Checkout, key: Path) -> None:
    said = refused(checkout, "home", "--address", "192.0.2.1", "--key", str(key), "--prefix", "10.10.0.0/33")
    assert said.startswith("init: 10.10.0.0/33 is no IPv4 prefix")
    init(checkout, key)


def test_a_private_key_is_refused_and_not_shown(checkout: Checkout, key: Path) -> None:
    private = key.with_suffix("")
    said = refused(checkout, "home", "--address", "192.0.2.1", "--key", str(private))
    assert said == f"init: {private}: that is the private key (name the .pub file beside it)"


@pytest.mark.parametrize("field", ["address", "uplink", "domain", "lan", "key", "user"])
def test_text_that_would_be_code_in_the_site_is_none(checkout: Checkout, key: Path, field: str) -> None:
    trap = checkout.root / "trap"
    answers = {"key": key.read_text().strip()}
    answers[field] = answers.get(field, "x") + f'", __import__("pathlib").Path("{trap}").touch(), "'
    if field == "key":
        newsite.write(newsite.Answers(**{"name": "home", "address": "x", **answers}), checkout.root, trap.parent / "id")
        assert "touch()" in str(site(checkout).model_dump())
    else:
        refused_answers(checkout, **answers)
    assert not trap.exists()


def test_without_a_terminal_a_missing_address_is_named(checkout: Checkout, key: Path) -> None:
    said = refused(checkout, "home", "--key", str(key))
    assert said == "init: --address is missing (where does the gateway answer SSH now?)"


def on_a_terminal(checkout: Checkout, answers: str, *arguments: str) -> tuple[int, str]:
    """Run `invoke` on a terminal where somebody types; returns its exit status and what stood on the screen."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, **checkout.environment, "PYTHONPATH": str(checkout.root)}
    command = [str(Path(sys.executable).with_name("invoke")), *arguments]
    with subprocess.Popen(
        command, cwd=checkout.root, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        os.write(ours, answers.encode())
        screen = b""
        while True:
            try:
                screen += os.read(ours, 4096)
            except OSError:
                break
        os.close(ours)
    return process.returncode, screen.decode().replace("\r\n", "\n")


def test_on_a_terminal_init_asks_and_an_empty_answer_takes_what_is_offered(checkout: Checkout, key: Path) -> None:
    status, screen = on_a_terminal(checkout, f"192.0.2.7\n\n{key}\nwan9\n\n\n\n", "init", "home")
    assert status == 0, screen
    assert "User to log in as now (needs sudo, or root) [root]: " in screen
    home = site(checkout).gateways["gateway"]
    assert (home.address, home.contact.user, home.networks["internet"].interface) == ("192.0.2.7", "root", "wan9")


def test_a_site_that_lacks_only_its_vault_is_given_one(checkout: Checkout, key: Path) -> None:
    init(checkout, key)
    vault = checkout.root / "inventories/vaults/home.age"
    identity = Path(checkout.environment["XDG_CONFIG_HOME"]) / "gatehouse" / "home.age"
    vault.unlink()
    assert "there is an identity already" in refused(checkout, "home")
    identity.unlink()
    done = checkout.invoke("init", "home")
    assert done.status == 0, done.text
    assert Vault.open(vault, [identity]).names() == []


class Greeter(paramiko.ServerInterface):
    """Lets nobody in."""


@pytest.fixture
def gateway_at() -> Iterator[Callable[[paramiko.PKey], int]]:
    """Makes SSH servers on loopback, each with the host key that it is given; returns their port."""
    opened: list[socket.socket] = []

    def listen(key: paramiko.PKey, port: int = 0) -> int:
        listener = socket.create_server(("127.0.0.1", port))
        opened.append(listener)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                transport = paramiko.Transport(connection)
                transport.add_server_key(key)
                try:
                    transport.start_server(server=Greeter())
                except (paramiko.SSHException, EOFError, OSError):
                    transport.close()

        threading.Thread(target=serve, daemon=True).start()
        return int(listener.getsockname()[1])

    yield listen
    for listener in opened:
        listener.close()


def host_key(path: Path) -> paramiko.Ed25519Key:
    new_key(path)
    return paramiko.Ed25519Key.from_private_key_file(str(path))


def known_at(checkout: Checkout, key: Path, port: int) -> Path:
    """The site home, whose gateway answers SSH on that port of loopback; returns its known hosts, not there yet."""
    init(checkout, key, address="127.0.0.1")
    checkout.edit(
        "inventories/group_data/home.py",
        ('"contact": {"address": "127.0.0.1",', f'"contact": {{"address": "127.0.0.1", "port": {port},'),
        ('        "port": 22,\n', f'        "port": {port},\n        "former_ports": [{port}],\n'),
    )
    return checkout.root / "inventories/known_hosts/home"


def test_trust_pins_the_key_whose_fingerprint_is_given_and_no_other(
    checkout: Checkout, key: Path, tmp_path: Path, gateway_at: Callable[[paramiko.PKey], int]
) -> None:
    offered = host_key(tmp_path / "host")
    port = gateway_at(offered)
    pinned = known_at(checkout, key, port)

    wrong = checkout.invoke("trust", "--site", "home", "--fingerprint", "SHA256:wrong")
    assert wrong.status == 1
    assert "that is not SHA256:wrong: nothing was pinned" in wrong.err
    asked = checkout.invoke("trust", "--site", "home")
    assert asked.status == 1
    assert asked.err == "no terminal to ask on: nothing was changed (add --yes)\n"
    assert not pinned.exists()

    right = checkout.invoke("trust", "--site", "home", "--fingerprint", offered.fingerprint)
    assert right.status == 0, right.text
    assert pinned.read_text() == f"[127.0.0.1]:{port} ssh-ed25519 {offered.get_base64()}\n"
    again = checkout.invoke("trust", "--site", "home", "--fingerprint", offered.fingerprint)
    assert again.status == 0, again.text
    assert len(pinned.read_text().splitlines()) == 1


def test_trust_asks_on_a_terminal_and_takes_no_for_an_answer(
    checkout: Checkout, key: Path, tmp_path: Path, gateway_at: Callable[[paramiko.PKey], int]
) -> None:
    offered = host_key(tmp_path / "host")
    pinned = known_at(checkout, key, gateway_at(offered))
    status, screen = on_a_terminal(checkout, "n\n", "trust", "--site", "home")
    assert status == 1
    assert offered.fingerprint in screen
    assert not pinned.exists()
    status, screen = on_a_terminal(checkout, "y\n", "trust", "--site", "home")
    assert status == 0, screen
    assert offered.get_base64() in pinned.read_text()


def test_another_key_for_a_pinned_host_is_refused(
    checkout: Checkout, key: Path, tmp_path: Path, gateway_at: Callable[[paramiko.PKey], int]
) -> None:
    second = host_key(tmp_path / "second")
    port = gateway_at(second)
    pinned = known_at(checkout, key, port)
    pinned.parent.mkdir(exist_ok=True)
    first = f"[127.0.0.1]:{port} ssh-ed25519 {host_key(tmp_path / 'first').get_base64()}\n"
    pinned.write_text(first)
    done = checkout.invoke("trust", "--site", "home", "--fingerprint", second.fingerprint)
    assert done.status == 1
    assert f"another key is pinned for [127.0.0.1]:{port} (if it was reinstalled, remove that line)" in done.err
    assert pinned.read_text() == first


def test_a_gateway_that_does_not_answer_is_not_trusted(checkout: Checkout, key: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = int(unused.getsockname()[1])
    known_at(checkout, key, port)
    done = checkout.invoke("trust", "--site", "home")
    assert done.status == 1
    assert done.err.startswith(f"gateway: no host key from 127.0.0.1 port {port}: "), done.err
    assert "is it on, and SSH reachable?" in done.err


def test_a_gateway_whose_key_is_not_pinned_is_not_deployed_to(
    checkout: Checkout, key: Path, tmp_path: Path, gateway_at: Callable[[paramiko.PKey], int]
) -> None:
    known_at(checkout, key, gateway_at(host_key(tmp_path / "host")))
    done = checkout.pyinfra("-y", inventory="inventories/home")
    assert done.status == 1, done.text
    assert "No host key for" in done.err
    assert "`./kit trust --site home` pins a new one" in done.err
    plan = checkout.invoke("plan", "--site", "home")
    assert plan.status == 1
    assert "`./kit trust --site home`" in plan.err
    assert len(plan.err.splitlines()) == 1


def test_sites_and_inventories_that_are_not_there_or_have_no_hosts_are_refused(checkout: Checkout) -> None:
    nowhere = checkout.pyinfra("-y", inventory="inventories/nowhere")
    assert nowhere.status == 1
    assert nowhere.err.splitlines()[-1] == "inventories/nowhere: no such inventory (`./kit init nowhere` makes one)"
    for task in ("plan", "harden", "verify"):
        done = checkout.invoke(task, "--site", "nowhere")
        assert done.status == 1
        assert done.err.startswith("site 'nowhere': no inventories/nowhere (sites here: lab"), done.err
    (checkout.root / "inventories/lab").write_text("lab = []\n")
    empty = checkout.pyinfra("-y")
    assert empty.status == 1, empty.text
    assert empty.err.splitlines()[-1].startswith("inventories/lab: names no hosts (let it say"), empty.err


def test_the_example_site_says_what_it_still_needs(checkout: Checkout) -> None:
    done = checkout.pyinfra("-y", inventory="inventories/prod")
    assert done.status == 1, done.text
    assert "Traceback" not in done.err
    assert "inventories/group_data/prod.py: ssh keys: is empty (add at least one)" in done.err


@pytest.fixture
def remote(checkout: Checkout, key: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A site that is no lab, with two changes to make; returns what is done to it."""
    init(checkout, key)
    done: list[str] = []
    planned = run.Plan({"gateway": ("Time | Configure chrony", "SSH | Configure SSH")})
    monkeypatch.setattr(common, "site", lambda name: load(name, checkout.root))
    monkeypatch.setattr(run, "plan", lambda where: planned)
    monkeypatch.setattr(run, "apply", lambda where: done.append(f"applied {where.name}"))
    monkeypatch.setattr(proof, "prove", lambda where, as_json=False: done.append(f"verified {where.name}") or 0)
    monkeypatch.setattr(labs, "build", lambda where: done.append("built a lab"))
    monkeypatch.setattr(reportseals, "prepare", lambda where: None)
    return done


def hardened(site: str, **options: bool) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        sites.harden(Context(), site=site, **options)
    return ended.value.code


def test_harden_without_a_terminal_changes_nothing_unless_told_to(
    remote: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", open(os.devnull))  # noqa: SIM115
    assert hardened("home") == "no terminal to ask on: nothing was changed (add --yes)"
    assert remote == []
    assert "gateway: SSH | Configure SSH" in capsys.readouterr().out
    assert hardened("home", yes=True) == 0
    assert remote == ["applied home", "verified home"]


@pytest.mark.parametrize(("answer", "changed"), [("y", True), ("yes", True), ("", False), ("n", False), ("no", False)])
def test_harden_asks_before_it_changes_anything(
    remote: list[str], monkeypatch: pytest.MonkeyPatch, answer: str, changed: bool
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or answer)
    assert hardened("home") == (0 if changed else "nothing was changed")
    assert asked == ["Apply this to gateway? [y/N] "]
    assert remote == (["applied home", "verified home"] if changed else [])


def test_harden_with_nothing_to_change_asks_nothing_and_verifies(
    remote: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "plan", lambda where: run.Plan({"gateway": ()}))
    monkeypatch.setattr("builtins.input", lambda question: pytest.fail(question))
    assert hardened("home") == 0
    assert remote == ["verified home"]


def test_the_fingerprint_is_the_one_that_openssh_shows(
    tmp_path: Path, checkout: Checkout, key: Path, gateway_at: Callable[[paramiko.PKey], int]
) -> None:
    offered = host_key(tmp_path / "host")
    known_at(checkout, key, gateway_at(offered))
    shown = subprocess.run(["ssh-keygen", "-lf", tmp_path / "host.pub"], capture_output=True, text=True, check=True)
    assert trust.offered(site(checkout), "gateway").fingerprint == shown.stdout.split()[1]


@pytest.mark.parametrize("task", ["harden", "init", "data.backup", "mud.import"])
def test_help_after_a_task_explains_it_also_where_it_wants_a_name_or_a_file(task: str) -> None:
    for option in ("--help", "-h"):
        done = Checkout(common.ROOT).invoke(task, option)
        assert done.status == 0, done.text
        assert f" {task} [--options]" in done.out and "Docstring:" in done.out
