"""The boot loader: Debian's programs make its menu, GRUB itself starts from it, and a menu that is wrong is seen."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deploy.bootpasswords import movers
from gatehouse.identity import SecretStore, bootloader, rotation
from gatehouse.identity.pki import Pki
from roles import lifecycle
from roles.bootloader import MENU, SCRIPT, SETTINGS, operations
from roles.bootloader.menu import entries, started
from roles.differences import HEARD
from roles.target import Target
from tests.compliance.bootloader import judged
from tests.roles import debian, grub
from tests.roles.grub import KERNEL, Console, Machine

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="showing programs other folders needs root")

UPDATE = f"grub-mkconfig -o {MENU}"  # as Debian does with each new kernel
ASKS, EDITS, STARTED = "Enter username:", "Minimum Emacs-like", "BOOT_IMAGE="
DOWN, ENTER = "\x0e", "\r"


@pytest.fixture(scope="module", autouse=True)
def grubs_programs(programs: Callable[..., None]) -> None:
    programs("grub-mkconfig", "grub-common")


@pytest.fixture(scope="module")
def qemu(programs: Callable[..., None]) -> None:
    programs("qemu-system-x86_64", "qemu-system-x86")
    if not grub.FIRST_SECTOR.exists():
        assert not (failed := debian.install("grub-pc-bin")), failed


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """As Debian's installer leaves it."""
    machine = Machine(tmp_path)
    machine.installed()
    return machine


@pytest.fixture
def target(gateway_of: Callable[..., Target], new_pki: Callable[[], Pki]) -> Target:
    """With a vault of its own."""
    return gateway_of(pki=new_pki())


@pytest.fixture
def protected(machine: Machine, target: Target, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The machine, deployed to."""
    assert deployed(machine, target, monkeypatch)
    return machine


def deployed(machine: Machine, target: Target, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """Runs the role's operation on a machine; the differences that it told."""

    class Host:
        connector_data: dict[str, Any] = {HEARD: []}

        def get_fact(self, fact: Any, **arguments: Any) -> Any:
            said = machine.run(fact().command(**arguments))
            assert not said.returncode, said.stderr
            return fact().process(said.stdout.splitlines())

    for module in (operations, lifecycle):
        monkeypatch.setattr(module, "host", Host())
    for command in operations.protected._inner(target):
        done = machine.run(str(command), command.connector_arguments.get("_stdin", ""))
        assert not done.returncode, done.stderr
    told: list[tuple[str, str, str]] = operations.host.connector_data[HEARD]
    return told


@dataclass
class Live:
    """A gateway as the check sees it."""

    machine: Machine
    target: Target
    is_container: bool = False
    name: str = "gw"
    evidence: list[dict[str, Any]] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)

    @property
    def vault(self) -> Any:
        return self.target.pki.vault

    def run(self, *argv: str) -> SimpleNamespace:
        if argv == ("cat", "/proc/cmdline"):
            return SimpleNamespace(result={"output": f"BOOT_IMAGE=/boot/{KERNEL} root=/dev/vda1 ro quiet\n"})
        done = self.machine.run(shlex.join(argv))
        return SimpleNamespace(result={"output": done.stdout, "status": done.returncode})

    def checked(self) -> None:
        """Makes the compliance suite's check; raises as that does."""
        judged(self, self.evidence.append, self.warned.append)


# what is made


def test_who_changes_anything_is_asked_and_a_second_deploy_finds_nothing_to_do(
    machine: Machine, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = deployed(machine, target, monkeypatch)
    assert [(kind, name) for kind, name, _ in told] == [("file", SCRIPT), ("file", SETTINGS), ("file", MENU)]
    assert told[-1][2] == "mode, password, arguments not as declared"
    secrets = [target.pki.vault.get(name).decode(errors="replace") for name in target.pki.vault.names("bootloader/")]
    assert not any(secret in str(told) for secret in secrets)
    before = machine.menu.read_bytes()
    assert deployed(machine, target, monkeypatch) == []
    assert machine.menu.read_bytes() == before
    assert machine.menu.stat().st_mode & 0o7777 == 0o600
    live = Live(machine, target)
    live.checked()
    assert live.warned == [
        "the kernel was started without audit=1 audit_backlog_limit=8192: it is told at the next start"
    ]


def test_what_runs_in_the_deploy_shows_neither_password_nor_hash(
    machine: Machine, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    run = machine.run
    monkeypatch.setattr(machine, "run", lambda shell, stdin="": [shown.append(shell), run(shell, stdin)][1])
    deployed(machine, target, monkeypatch)
    vault = target.pki.vault
    secrets = bootloader.password_of(vault, "gw"), bootloader.password_hash(vault, "gw").rpartition(".")[2]
    assert len(shown) > 3
    assert not any(secret in line for line in shown for secret in secrets)


def test_a_new_kernel_of_debian_s_starts_without_a_password_too(protected: Machine, target: Target) -> None:
    (protected.boot / "vmlinuz-6.1.0-2-amd64").write_bytes((protected.boot / KERNEL).read_bytes())
    done = protected.run(UPDATE)
    assert not done.returncode, done.stderr
    first, *_ = started(protected.menu.read_text())
    assert first.free and "vmlinuz-6.1.0-2-amd64" in first.kernels[0]
    Live(protected, target).checked()


def test_a_deploy_that_died_before_the_menu_was_made_is_ended_by_the_next(
    machine: Machine, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed(machine, target, monkeypatch)
    machine.menu.unlink()
    (machine.scripts / "01_gatehouse").chmod(0o600)
    machine.run(UPDATE)
    (machine.scripts / "01_gatehouse").chmod(0o700)
    assert deployed(machine, target, monkeypatch) == [("file", MENU, "password not as declared")]
    Live(machine, target).checked()


def test_nothing_is_done_and_nothing_made_where_something_else_starts_the_machine(
    machine: Machine, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.menu.unlink()
    assert deployed(machine, target, monkeypatch) == []
    assert not (machine.scripts / "01_gatehouse").exists()
    assert target.pki.vault.names("bootloader/") == []
    with pytest.raises(pytest.skip.Exception, match="no GRUB: something else starts it"):
        Live(machine, target).checked()
    with pytest.raises(pytest.skip.Exception, match="no GRUB: a container is started by the machine underneath"):
        Live(machine, target, is_container=True).checked()


# the hash


def test_the_hash_is_as_grub_s_own_program_makes_it() -> None:
    done = subprocess.run(["grub-mkpasswd-pbkdf2"], input="a pass-word\na pass-word\n", capture_output=True, text=True)
    made = done.stdout.split()[-1]
    assert made.startswith("grub.pbkdf2.sha512.10000."), done.stdout + done.stderr
    assert bootloader.opens("a pass-word", made)
    assert not bootloader.opens("a password", made)


# what is refused


RESCUE = "menuentry 'Rescue' {\n\tlinux /rescue root=/dev/vda1\n}"


@pytest.mark.parametrize(
    ("default", "name", "text"),
    [("Rescue", "40_custom", RESCUE), ("saved", "02_other", "set menuentry_id_option=--id")],
    ids=["Rescue", "saved"],
)
def test_a_menu_that_would_wait_for_a_password_replaces_none_and_leaves_nothing_for_the_next(
    machine: Machine, target: Target, monkeypatch: pytest.MonkeyPatch, default: str, name: str, text: str
) -> None:
    (machine.defaults / "grub").write_text(grub.SETTINGS.replace("GRUB_DEFAULT=0", f"GRUB_DEFAULT={default}"))
    script = machine.scripts / name
    script.write_text(f"#!/bin/sh\ncat <<'EOF'\n{text}\nEOF\n")
    script.chmod(0o755)
    assert not machine.run(UPDATE).returncode
    before = machine.menu.read_bytes()
    with pytest.raises(AssertionError, match=r"asks for a password: the machine does not start by itself(.|\n)*former"):
        deployed(machine, target, monkeypatch)
    assert machine.menu.read_bytes() == before
    assert not machine.run(UPDATE).returncode
    assert "superusers" not in machine.menu.read_text()
    (machine.defaults / "grub").write_text(grub.SETTINGS)
    script.unlink()
    deployed(machine, target, monkeypatch)
    Live(machine, target).checked()


def test_a_menu_that_grub_does_not_understand_replaces_none(
    protected: Machine, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = protected.menu.read_bytes()
    broken = protected.scripts / "40_custom"
    broken.write_text("#!/bin/sh\necho 'menuentry {'\n")
    with (vault := target.pki.vault).transaction():
        bootloader.forget_salt(vault, "gw")
    with pytest.raises(AssertionError, match=r"Syntax errors(.|\n)*the former one stays"):
        deployed(protected, target, monkeypatch)
    assert protected.menu.read_bytes() == before
    assert [path.name for path in protected.menu.parent.iterdir()] == ["grub.cfg"]
    broken.write_text("#!/bin/sh\n")
    assert deployed(protected, target, monkeypatch) == [("file", MENU, "password not as declared")]


def test_without_room_the_former_menu_stays(protected: Machine, target: Target) -> None:
    before = protected.menu.read_bytes()
    script, judge = operations.making()
    full = f"mount -t tmpfs -o size=4k none /boot/grub && echo former >{MENU} && chmod 600 {MENU}"
    done = protected.run(f"{full}; sh -c {shlex.quote(script)}; echo $? $(ls -A /boot/grub) $(cat {MENU})", judge)
    assert done.stdout.split() == ["1", "grub.cfg", "former"], done.stdout + done.stderr
    assert protected.menu.read_bytes() == before


# sabotages


def by_script(text: str, name: str = "40_custom") -> Callable[[Machine], None]:
    """A script of somebody's, and Debian makes the menu anew."""

    def broken(machine: Machine) -> None:
        (machine.scripts / name).write_text(f"#!/bin/sh\ncat <<'EOF'\n{text}\nEOF\n")
        machine.run(UPDATE)

    return broken


def without(line: str) -> Callable[[Machine], None]:
    """A line of the kit's script is gone, and Debian makes the menu anew."""

    def broken(machine: Machine) -> None:
        script = machine.scripts / "01_gatehouse"
        lines = script.read_text().splitlines(keepends=True)
        assert any(line in each for each in lines)
        script.write_text("".join(each for each in lines if line not in each))
        machine.run(UPDATE)

    return broken


def told_nothing(machine: Machine) -> None:
    (machine.defaults / "grub.d" / Path(SETTINGS).name).unlink()
    machine.run(UPDATE)


def no_kernel(machine: Machine) -> None:
    (machine.boot / KERNEL).unlink()
    machine.run(UPDATE)


def another_password(machine: Machine) -> None:
    menu = machine.menu.read_text()
    other = bootloader.password_hash(SecretStore(), "gw")
    own = next(line for line in menu.splitlines() if line.startswith("password_pbkdf2 "))
    machine.menu.write_text(menu.replace(own, f"password_pbkdf2 gatehouse {other}"))


SABOTAGES: dict[str, tuple[Callable[[Machine], object], str]] = {
    "nobody is asked": (without("set superusers"), "open to everybody"),
    "nobody is asked in a menu within": (without("export superusers"), "superusers is not exported"),
    "everybody is asked, at each start": (without("--unrestricted"), "does not start by itself"),
    "nobody has a password": (without("password_pbkdf2"), "gatehouse has no hashed password"),
    "somebody else is let in": (by_script('set superusers="gatehouse root"'), "open to gatehouse, root"),
    "a password in the clear": (by_script("password root toor"), "a password stands in the clear"),
    "another password": (another_password, "is not the vault's"),
    "no word to the kernel": (told_nothing, "a kernel is not told audit=1"),
    "everybody reads the hash": (lambda machine: machine.menu.chmod(0o644), "others read the password's hash"),
    "everybody reads the script": (lambda machine: (machine.scripts / "01_gatehouse").chmod(0o755), "others read"),
    "no kernel": (no_kernel, "there is no kernel of Debian's in it"),
}


@pytest.mark.parametrize("name", SABOTAGES)
def test_what_breaks_it_is_seen(protected: Machine, target: Target, name: str) -> None:
    Live(protected, target).checked()
    breaks, said = SABOTAGES[name]
    breaks(protected)
    with pytest.raises(AssertionError, match=said):
        Live(protected, target).checked()


# rotation


@pytest.fixture
def rotated(protected: Machine, target: Target, tmp_path: Path) -> Iterator[Any]:
    """The gateways of a command that replaces secrets: the one is the machine."""

    def run(script: str, stdin: str = "") -> str:
        done = protected.run(script, stdin)
        assert not done.returncode, done.stderr
        return done.stdout

    yield SimpleNamespace(
        pki=target.pki, running=lambda _: ["gw"], remote=lambda _: SimpleNamespace(run=run), target=lambda _: target
    )


def test_a_replaced_password_is_taken_and_the_former_one_is_not(
    rotated: Any, protected: Machine, target: Target
) -> None:
    vault = target.pki.vault
    former = bootloader.password_of(vault, "gw")
    (mover,) = movers(rotated)
    assert not mover.asked_for and "vault.show --name bootloader/gw/password" in mover.handover
    rotation.rotate(vault, mover)
    new = bootloader.password_of(vault, "gw")
    assert new != former and rotation.begun(vault) == []
    hashed = protected.menu.read_text().split("password_pbkdf2 gatehouse ")[1].split()[0]
    assert (bootloader.opens(new, hashed), bootloader.opens(former, hashed)) == (True, False)
    Live(protected, target).checked()


# GRUB itself


def test_it_starts_by_itself_and_the_kernel_is_told(protected: Machine, tmp_path: Path, qemu: None) -> None:
    with Console(protected.disk(tmp_path)) as console:
        assert console.says(STARTED, ASKS) == STARTED
        assert console.says("root=/dev/vda1 ro audit=1 audit_backlog_limit=8192 quiet", "\n").startswith("root=")


def test_who_edits_an_entry_or_opens_the_shell_is_asked_and_the_vault_s_password_is_taken(
    protected: Machine, target: Target, tmp_path: Path, qemu: None
) -> None:
    password = bootloader.password_of(target.pki.vault, "gw")
    with Console(protected.disk(tmp_path)) as console:
        console.says("executed automatically")
        # The shell, an entry, an entry of the menu within.
        for keys, name, given in (
            ("c", "root", password),
            ("e", "gatehouse", password[:-1]),
            (f"{DOWN}{ENTER}e", "gatehouse", password),
        ):
            console.types(keys)
            assert console.says(ASKS, EDITS, "grub>") == ASKS, keys
            console.types(f"{name}{ENTER}")
            console.says("password:")
            console.types(f"{given}{ENTER}")
            if (name, given) != ("gatehouse", password):
                assert console.says(EDITS, "grub>", "denied") == "denied"
                console.says("boot the selected OS")
        assert console.says(EDITS, "denied") == EDITS


def test_as_debian_leaves_it_nobody_is_asked(machine: Machine, tmp_path: Path, qemu: None) -> None:
    with Console(machine.disk(tmp_path)) as console:
        console.says("executed automatically")
        console.types("e")
        assert console.says(ASKS, EDITS) == EDITS


def test_what_the_judge_takes_for_a_menu_that_waits_does_wait(protected: Machine, tmp_path: Path, qemu: None) -> None:
    without("--unrestricted")(protected)
    assert not any(entry.free for entry in entries(protected.menu.read_text()))
    with Console(protected.disk(tmp_path)) as console:
        assert console.says(ASKS, STARTED) == ASKS
