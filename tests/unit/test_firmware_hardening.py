"""The configuration of ESP-IDF: what is written passes, and each single deviation is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import esp32
from gatehouse.updates.hardening import HardeningError, defaults, deviations, options, wanted
from gatehouse.updates.image import CHIPS
from tests.unit.machine import Machine, commands


def as_built(profile: str = "release", chip: str = "esp32s3") -> str:
    """An sdkconfig as idf.py writes it: without comments of ours, and with what is off as a comment."""
    lines = [line for line in defaults("relay", profile, chip).splitlines() if line.startswith("CONFIG_")]
    unset = [f"# {line[:-2]} is not set" if line.endswith("=n") else line for line in lines]
    return "\n".join(["CONFIG_SOMETHING_ELSE=y", *unset, ""])


@pytest.mark.parametrize("profile", ["release", "development"])
@pytest.mark.parametrize("chip", CHIPS)
def test_what_is_written_is_what_is_checked(profile: str, chip: str) -> None:
    assert list(deviations(defaults("relay", profile, chip), profile)) == []
    assert list(deviations(as_built(profile, chip), profile)) == []


def test_every_option_has_a_comment_with_why_and_cost() -> None:
    lines = defaults("relay", "release", "esp32").splitlines()
    set_here = [at for at, line in enumerate(lines) if line.startswith("CONFIG_") and "IDF_TARGET" not in line]
    assert len(set_here) > 35
    assert all(lines[at - 1].startswith("# ") and "; costs: " in lines[at - 1] for at in set_here)
    names = [option.name for option in options()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("option", wanted("release", "esp32s3"), ids=lambda option: option.name)
def test_each_deviation_is_named(option) -> None:
    built = as_built().splitlines()
    line = next(line for line in built if f"CONFIG_{option.name}=" in line or f"CONFIG_{option.name} is" in line)
    wrong = f"CONFIG_{option.name}=y" if option.value == "n" else f"# CONFIG_{option.name} is not set"
    (found,) = deviations("\n".join(wrong if each == line else each for each in built), "release")
    assert found.startswith(f"CONFIG_{option.name}=") and option.why in found


def test_development_burns_nothing_and_shows_its_log() -> None:
    text = defaults("relay", "development", "esp32s3")
    assert "IRREVERSIBLE" not in text and "LOG_DEFAULT_LEVEL_NONE" not in text
    assert "CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE=y" in text
    missing = {line.partition("=")[0].removeprefix("CONFIG_") for line in deviations(text, "release")}
    release = [option for option in wanted("release", "esp32s3") if option.profile == "release"]
    assert missing == {option.name for option in release if option.value == "y"} > {"SECURE_BOOT", "NVS_ENCRYPTION"}


def test_bluetooth_is_off_unless_it_is_asked_for() -> None:
    built = as_built().replace("# CONFIG_BT_ENABLED is not set", "CONFIG_BT_ENABLED=y")
    assert [line[:20] for line in deviations(built, "release")] == ["CONFIG_BT_ENABLED=y,"]
    assert list(deviations(built, "release", bluetooth=True)) == []


def test_an_option_of_another_chip_does_not_count() -> None:
    assert "ESP32_REV_MIN_3" in defaults("relay", "release", "esp32")
    assert "ESP32_REV_MIN_3" not in defaults("relay", "release", "esp32c3")


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "CONFIG_IDF_TARGET"), ('CONFIG_IDF_TARGET="esp8266"', "CONFIG_IDF_TARGET"), (b"\xff\xfe\0", "is no text")],
)
def test_a_file_that_is_no_sdkconfig_is_said_to_be_none(tmp_path: Path, content: str | bytes, said: str) -> None:
    path = tmp_path / "sdkconfig"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(HardeningError, match=said) as refused:
        esp32.check(path, "release", False)
    assert str(refused.value).startswith(str(path)) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "Relay 1"}, "model 'Relay 1'"),
        ({"profile": "both"}, "use development or release"),
        ({"chip": "esp8266"}, "chip 'esp8266'"),
    ],
)
def test_what_there_is_not_can_t_be_written(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    facts = {"model": "relay", "profile": "release", "chip": "esp32", **changes}
    with pytest.raises(HardeningError, match=said):
        esp32.write_defaults(tmp_path / "x", **facts, bluetooth=False, replace=False)
    assert list(tmp_path.iterdir()) == []


def test_the_documented_commands_write_and_check_and_replace_nothing_unasked(tmp_path: Path) -> None:
    machine = Machine.new(tmp_path)
    (block,) = (block for block in commands("firmware.md") if "firmware.harden" in block)
    assert "as the release profile has it" in machine.did(block)
    before = (machine.checkout / "sdkconfig.defaults").read_bytes()
    again = machine.sh("./kit firmware.harden --model pump --chip esp32")
    assert (again.returncode, again.stderr.count("\n")) == (1, 1) and "is there already" in again.stderr
    assert (machine.checkout / "sdkconfig.defaults").read_bytes() == before
    machine.did("./kit firmware.harden --model pump --chip esp32 --yes")
    machine.did("sed -i s/MBEDTLS_HAVE_TIME_DATE=y/MBEDTLS_HAVE_TIME_DATE=n/ sdkconfig.defaults")
    checked = machine.sh("./kit firmware.check-config sdkconfig.defaults")
    assert (checked.returncode, checked.stdout.count("\n")) == (
        1,
        1,
    ) and "HAVE_TIME_DATE=n, must be y" in checked.stdout
