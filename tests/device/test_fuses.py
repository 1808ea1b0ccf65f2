"""The fuse plan on simulated fuses: digest, burn, signed image verified, another key and a second burn refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy import fuses
from deploy.fuses import SCRIPT, FuseError


@pytest.fixture(scope="module")
def esp() -> Path:
    """esptool's programs, in the environment that `firmware.fuses` makes."""
    return fuses.tools(print)


@pytest.fixture(scope="module")
def keys(esp: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three signing keys, and the digests of each."""
    place = tmp_path_factory.mktemp("keys")
    for name in ("boot", "backup", "foreign"):
        pem = str(place / f"{name}.pem")
        assert run(esp, "espsecure", "generate-signing-key", "--version", "2", "--scheme", "rsa3072", pem) == 0
        digest = str(place / f"{name}.bin")
        assert run(esp, "espsecure", "digest-sbv2-public-key", "--keyfile", pem, "--output", digest) == 0
    return place


def run(esp: Path, program: str, *arguments: str) -> int:
    return subprocess.run([str(esp / program), *arguments], capture_output=True, check=False).returncode


def script(esp: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{esp}:{os.environ['PATH']}", **more}
    return subprocess.run([str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, check=False)


def burnt(esp: Path, chip: str, state: Path) -> dict[str, Any]:
    """The fuses, by name."""
    out = state.with_suffix(".json")
    command = ["--chip", chip, "--virt", "--path-efuse-file", str(state), "summary", "--format", "json"]
    assert run(esp, "espefuse", *command, "--file", str(out)) == 0
    return {name: facts["value"] for name, facts in json.loads(out.read_text()).items()}


def test_the_release_plan_burns_what_it_says_and_only_the_right_key_fits(esp: Path, keys: Path, tmp_path: Path) -> None:
    state = tmp_path / "fuses"
    given = (str(keys / "boot.bin"), str(keys / "backup.bin"), str(state))
    done = script(esp, "rehearse", "esp32s3", "release", *given)
    assert done.returncode == 0, done.stderr
    found = burnt(esp, "esp32s3", state)
    for name in (
        "SECURE_BOOT_EN", "DIS_PAD_JTAG", "DIS_USB_JTAG", "DIS_DIRECT_BOOT", "DIS_DOWNLOAD_ICACHE",
        "DIS_DOWNLOAD_DCACHE", "DIS_DOWNLOAD_MANUAL_ENCRYPT", "DIS_DOWNLOAD_MODE", "SECURE_BOOT_KEY_REVOKE2",
    ):  # fmt: skip
        assert found[name] is True, name
    assert found["SECURE_BOOT_KEY_REVOKE0"] is False and found["SECURE_BOOT_KEY_REVOKE1"] is False
    for block, name in (("BLOCK_KEY4", "boot"), ("BLOCK_KEY5", "backup")):
        assert bytes.fromhex(found[block].replace(" ", "")) == (keys / f"{name}.bin").read_bytes()

    image, signed = tmp_path / "app.bin", tmp_path / "app.signed"
    image.write_bytes(os.urandom(5000))
    pem = [str(keys / f"{name}.pem") for name in ("boot", "foreign")]
    sign = ("sign-data", "--version", "2", "--keyfile", pem[0], "--output", str(signed), str(image))
    assert run(esp, "espsecure", *sign) == 0
    verify = ("verify-signature", "--version", "2", "--keyfile")
    assert run(esp, "espsecure", *verify, pem[0], str(signed)) == 0
    assert run(esp, "espsecure", *verify, pem[1], str(signed)) != 0
    signed.write_bytes(bytes([signed.read_bytes()[0] ^ 1]) + signed.read_bytes()[1:])
    assert run(esp, "espsecure", *verify, pem[0], str(signed)) != 0

    second = script(esp, "rehearse", "esp32s3", "release", str(keys / "foreign.bin"), *given[1:])
    assert second.returncode == 1 and second.stderr.startswith("fuses: step 1 failed")
    assert burnt(esp, "esp32s3", state) == found


def test_the_development_plan_leaves_cable_and_debugger(esp: Path, keys: Path, tmp_path: Path) -> None:
    state = tmp_path / "fuses"
    given = (str(keys / "boot.bin"), str(keys / "backup.bin"), str(state))
    assert script(esp, "rehearse", "esp32c3", "development", *given).returncode == 0
    found = burnt(esp, "esp32c3", state)
    assert found["SECURE_BOOT_EN"] is True
    assert [found[name] for name in ("DIS_PAD_JTAG", "DIS_USB_JTAG", "DIS_DOWNLOAD_MODE")] == [False] * 3
    # what was interrupted goes on where it stopped
    assert script(esp, "rehearse", "esp32c3", "release", *given, FROM="5").returncode == 0
    assert burnt(esp, "esp32c3", state)["DIS_DOWNLOAD_MODE"] is True


def test_the_rehearsal_prints_the_plan(esp: Path) -> None:
    said = [
        subprocess.run(
            [sys.executable, "-m", "invoke", "firmware.fuses", "--chip", "esp32c3", *option],
            cwd=SCRIPT.parents[2], capture_output=True, text=True,
        )
        for option in ([], ["--rehearse"])
    ]  # fmt: skip
    assert [done.returncode for done in said] == [0, 0], said
    plan, rehearsed = (done.stdout for done in said)
    assert [line for line in plan.splitlines() if line[:2].strip().isdigit()] == [
        line for line in rehearsed.splitlines() if line[:2].strip().isdigit()
    ]
    assert plan.splitlines()[-3].endswith("the cable is closed")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("burn",), "chip ''"),
        (("plan", "esp32", "release"), "others have other fuses"),
        (("plan", "esp32s3", "both"), "profile 'both'"),
        (("rehearse", "esp32s3", "release", "nowhere", "nowhere", "x"), "no such file"),
        (("rehearse", "esp32s3", "release", "boot.pem", "boot.bin", "x"), "has not 32 bytes"),
        (("rehearse", "esp32s3", "release", "boot.bin", "boot.bin", "x"), "the two digests are the same"),
        (("burn", "esp32s3", "release", "boot.bin", "backup.bin"), "or the port of the chip"),
        (("smoke", "esp32s3", "release"), "say plan, rehearse or burn"),
    ],
)
def test_what_is_given_wrong_is_said_in_a_line_and_burns_nothing(
    esp: Path, keys: Path, arguments: tuple[str, ...], said: str
) -> None:
    given = [str(keys / word) if (keys / word).is_file() else word for word in arguments]
    done = script(esp, *given)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1) and said in done.stderr


def test_a_key_that_is_none_ends_the_rehearsal(esp: Path, tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("no key")
    with pytest.raises(FuseError, match="digest-sbv2-public-key"):
        fuses.rehearse("esp32s3", "release", str(tmp_path / "x.pem"), "", print)
