"""The start script: it makes the environment from the lock file once, and again when it must."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

KIT = Path(__file__).parents[2] / "kit"
TOOLS = ["cat", "dirname", "env", "flock", "grep", "id", "readlink", "rm", "sh", "sha256sum", "tail"]


def build_invoke(wheels: Path, version: str) -> str:
    """Builds a wheel named invoke whose command prints its version and arguments, and exits with 7 for the task `fail`.

    Returns the lock file's line for it, with its hash.
    """
    info = f"invoke-{version}.dist-info"
    files = {
        "invoke.py": (
            "import os, sys\n"
            "def main():\n"
            f"    print('{version}', *sys.argv[1:], sep='|')\n"
            "    if sys.argv[1] == 'where': import from_checkout; print(os.getcwd(), from_checkout.__file__, sep='|')\n"
            "    return 7 if sys.argv[1] == 'fail' else 0\n"
        ),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: invoke\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ninvoke = invoke:main\n",
    }
    record = []
    wheel = wheels / f"invoke-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(text)}\n")
        archive.writestr(f"{info}/RECORD", "".join(record) + f"{info}/RECORD,,\n")
    return f"invoke=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


@dataclass
class Checkout:
    """A copy of `kit` beside a lock file of one package, which pip finds in a folder instead of an index."""

    root: Path
    wheels: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root.mkdir()
        self.wheels.mkdir()
        shutil.copy(KIT, self.root / "kit")
        (self.root / "from_checkout.py").touch()
        self.lock(build_invoke(self.wheels, "1.0"))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON", "VIRTUAL"))}
        self.environment = kept | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)}

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    def lock(self, text: str) -> None:
        (self.root / "requirements.lock").write_text(text)

    def start(self, *arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.root / "kit", *arguments],
            env=self.environment | environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, cwd=cwd, **environment)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "a checkout", tmp_path / "wheels")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout whose environment the first start has made; its tests leave it as it is."""
    folder = tmp_path_factory.mktemp("kit")
    made = Checkout(folder / "a checkout", folder / "wheels")
    first = made.run("harden", "--site", "a b")
    assert first.returncode == 0, first.stderr
    assert first.stdout == "1.0|harden|--site|a b\n"
    assert "making .venv with 1 packages" in first.stderr
    return made


def tool(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def tools_without_python(folder: Path) -> Path:
    folder.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found, name
        (folder / name).symlink_to(found)
    return folder


def test_a_second_start_installs_nothing(installed: Checkout) -> None:
    before = (installed.venv / "installed-from").stat().st_mtime_ns
    again = installed.run("verify")
    assert (again.returncode, again.stdout, again.stderr) == (0, "1.0|verify\n", "")
    assert (installed.venv / "installed-from").stat().st_mtime_ns == before


def test_no_argument_lists_the_tasks(installed: Checkout) -> None:
    assert installed.run().stdout == "1.0|--list\n"


def test_help_explains_the_script_and_with_a_name_the_task(installed: Checkout) -> None:
    assert installed.run("help").stdout.startswith("Usage: ./kit")
    assert installed.run("--help").stdout == installed.run("help").stdout
    assert installed.run("help", "harden").stdout == "1.0|--help|harden\n"


def test_help_needs_no_environment(checkout: Checkout) -> None:
    assert checkout.run("--help").returncode == 0
    assert not checkout.venv.exists()


def test_the_exit_status_of_the_task_is_passed_on(installed: Checkout) -> None:
    assert installed.run("fail").returncode == 7
    assert installed.run("pass").returncode == 0


def test_tasks_run_in_the_checkout_and_import_from_it_wherever_kit_was_called(
    installed: Checkout, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(installed.root / "kit")
    answer = subprocess.run(
        [tmp_path / "link", "where"],
        cwd=tmp_path,
        env=installed.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.splitlines()[1] == f"{installed.root}|{installed.root}/from_checkout.py"


def test_the_environments_own_python_imports_from_the_checkout(installed: Checkout, tmp_path: Path) -> None:
    subprocess.run([installed.venv / "bin/python", "-c", "import from_checkout"], cwd=tmp_path, check=True)


def test_a_shell_finds_the_environments_commands_first(installed: Checkout, tmp_path: Path) -> None:
    answer = installed.run("shell", "-c", "command -v invoke; command -v python; pwd", cwd=tmp_path, SHELL="/bin/sh")
    assert answer.stdout.splitlines() == [
        str(installed.venv / "bin/invoke"),
        str(installed.venv / "bin/python"),
        str(tmp_path),
    ]


def test_a_changed_lock_file_makes_the_environment_anew(checkout: Checkout) -> None:
    assert checkout.run("task").stdout == "1.0|task\n"
    left_over = checkout.venv / "left-over"
    left_over.touch()
    checkout.lock(build_invoke(checkout.wheels, "2.0"))
    # Even from within the old environment, whose python goes away with it.
    answer = checkout.run("task", PATH=f"{checkout.venv}/bin:{checkout.environment['PATH']}")
    assert (answer.returncode, answer.stdout) == (0, "2.0|task\n"), answer.stderr
    assert not left_over.exists()


def test_a_moved_checkout_makes_its_environment_anew(checkout: Checkout) -> None:
    checkout.run("task")
    moved = checkout.root.rename(checkout.root.with_name("moved"))
    checkout.root = moved
    answer = checkout.run("where")
    assert answer.stdout.splitlines() == ["1.0|where", f"{moved}|{moved}/from_checkout.py"], answer.stderr


def test_a_killed_install_is_done_again(checkout: Checkout) -> None:
    killed = checkout.start("task")
    while not (checkout.venv / "pyvenv.cfg").exists():
        assert killed.poll() is None, "the install ended before it could be killed"
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not (checkout.venv / "installed-from").exists()

    answer = checkout.run("task")
    assert (answer.returncode, answer.stdout) == (0, "1.0|task\n"), answer.stderr
    assert "making .venv" in answer.stderr


def test_two_starts_at_once_install_once(checkout: Checkout) -> None:
    both = [checkout.start("task"), checkout.start("task")]
    answers = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert [out for out, _ in answers] == ["1.0|task\n"] * 2
    assert sum("making .venv" in err for _, err in answers) == 1


def test_a_package_that_does_not_match_its_hash_is_refused_and_the_right_one_accepted(checkout: Checkout) -> None:
    good = (checkout.root / "requirements.lock").read_text()
    checkout.lock(good[:-5] + ("0000\n" if good[-5:-1] != "0000" else "1111\n"))
    refused = checkout.run("task")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "DO NOT MATCH THE HASHES" in refused.stderr
    assert len(refused.stderr.splitlines()) == 2  # what it did, and why that failed
    checkout.lock(good)
    assert checkout.run("task").stdout == "1.0|task\n"


def test_an_index_that_does_not_answer_is_named_as_the_reason(checkout: Checkout) -> None:
    answer = checkout.run(
        "task", PIP_NO_INDEX="0", PIP_FIND_LINKS="", PIP_INDEX_URL="http://127.0.0.1:9", PIP_RETRIES="1"
    )
    assert answer.returncode == 1
    assert "no answer from the package index, check the network and proxy" in answer.stderr.splitlines()[-1]
    assert not (checkout.venv / "installed-from").exists()


def test_a_machine_without_python_is_told_so_in_one_line(checkout: Checkout, tmp_path: Path) -> None:
    answer = checkout.run("task", PATH=str(tools_without_python(tmp_path / "bin")))
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr == "kit: no Python 3.11 or newer found: install python3, or put it on PATH\n"


def test_a_python_that_is_too_old_is_passed_over_for_one_that_is_not(checkout: Checkout, tmp_path: Path) -> None:
    path = tools_without_python(tmp_path / "bin")
    tool(path, "python3", "exit 1  # what the question for 3.11 ends in")
    assert "no Python 3.11 or newer" in checkout.run("task", PATH=str(path)).stderr
    (path / "python3.11").symlink_to(sys.executable)
    assert checkout.run("task", PATH=str(path)).stdout == "1.0|task\n"


@pytest.mark.parametrize(("uid", "installs"), [(0, True), (1000, False)], ids=["root", "not-root"])
def test_debians_venv_package_is_installed_when_missing_by_root_only(
    checkout: Checkout, tmp_path: Path, uid: int, installs: bool
) -> None:
    path = tools_without_python(tmp_path / "bin")
    python = tmp_path / "python"
    # It names itself as its real path, or kit would ask the real Python for its modules.
    tool(
        path,
        "python3",
        f'case "$*" in *realpath*) echo "{path}/python3" ;;\n'
        f'*ensurepip*) [ -e "{python}" ] ;; *) exec "{sys.executable}" "$@" ;; esac',
    )
    tool(path, "apt-get", f'echo "$*" >>"{tmp_path}/apt"; case "$*" in *install*) : >"{python}" ;; esac')
    (path / "id").unlink()
    tool(path, "id", f"echo {uid}")

    answer = checkout.run("task", PATH=str(path))

    if installs:
        assert (answer.returncode, answer.stdout) == (0, "1.0|task\n"), answer.stderr
        assert "kit: installing the Debian package python3-venv" in answer.stderr.splitlines()
        assert (tmp_path / "apt").read_text().splitlines() == [
            "-q update",
            "-q -y -o DPkg::Lock::Timeout=120 install python3-venv",
        ]
    else:
        assert answer.returncode == 1
        assert answer.stderr.endswith("run 'apt-get install python3-venv' as root\n")
        assert not (tmp_path / "apt").exists()


def test_the_script_is_executable() -> None:
    assert KIT.stat().st_mode & stat.S_IXUSR
