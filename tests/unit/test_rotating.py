"""`rotate` before it touches anything: names that there are not, gateways that are away, vaults that do not open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from commands import common, credentials
from deploy import gateways as connecting
from deploy import rotating, vaults
from deploy.remote import RemoteError
from gatehouse.identity import Vault, VaultError, new_identity, programs, rotation
from gatehouse.identity.rotation import RotationError
from roles import declared
from tests.unit.enrolling import House, a_house


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    """A site with everything, whose one gateway answers nobody."""
    made = a_house(
        tmp_path,
        services=declared(),
        psk=True,
        programs={"homeassistant": {"reads": ["devices/+/status"]}},
        devices=[{"name": "kitchen-01", "model": "m", "gateway": "gw1", "hmac_key": 1}],
        segments={"iot": {}, "management": {}, "internal": {}, "internet": {}},
    )
    monkeypatch.setattr(vaults, "open_vault", lambda _: made.vault())
    monkeypatch.setattr(vaults, "open_pki", lambda _, vault=None: made.pki(vault))
    monkeypatch.setattr(vaults, "registry_path", lambda _: made.registry)
    with (vault := made.vault()).transaction():
        for name in ("admin", "intake", "collector", "dashboards"):
            vault.set(f"influxdb.{name}", f"secret-{name}", "password")
        vault.set("devices/kitchen-01/hmac/1", "00" * 32, "hmac-key")
        vault.set(programs.secret_name("homeassistant"), "secret-of-a-program", "password")
    made.pki().client("gatehouse-intake")
    for page in ("gateway", "dashboards"):
        made.pki().server(f"web-{page}-gw1", [f"{page}.home.arpa"])

    def away(*_: Any) -> None:
        raise RemoteError("gw1: no SSH to 192.0.2.1 port 22: no route to host")

    monkeypatch.setattr(connecting, "connected", away)
    return made


@pytest.mark.parametrize(
    "name", ["nobody", "influxdb", "influxdb.intake2", "", "*/nothing", "../vault", "[", "x" * 500]
)
def test_a_name_that_there_is_not_is_told_with_those_that_there_are(house: House, name: str) -> None:
    before = house.vault().generation
    with pytest.raises(RotationError, match=r"nothing called .*can be replaced.*influxdb\.admin") as told:
        rotating.rotate(house.site, ["influxdb.admin", name], print)
    assert "\n" not in str(told.value) and len(str(told.value)) < 400
    assert house.vault().generation == before


def test_where_no_gateway_answers_nothing_is_begun(house: House) -> None:
    before, said = house.vault().generation, []
    outcome = rotating.rotate(house.site, [], said.append)
    assert len(outcome.failed) == 8 and all("no SSH to 192.0.2.1" in line for line in outcome.failed)
    assert not outcome.replaced and rotation.begun(house.vault()) == []
    assert house.vault().generation == before
    assert not any("secret" in line for line in [*said, *outcome.failed])


def test_what_no_deploy_has_made_yet_is_told(house: House) -> None:
    with (vault := house.vault()).transaction():
        vault.delete("influxdb.intake")
    outcome = rotating.rotate(house.site, ["influxdb.intake"], print)
    assert outcome.failed == ["influxdb.intake: there is none yet (run harden first)"]
    assert "influxdb.intake" not in house.vault()


def test_a_dry_run_says_what_it_would_do_and_does_nothing(house: House) -> None:
    before, said = house.vault().generation, []
    assert rotating.rotate(house.site, [], said.append, dry=True) == rotating.Outcome()
    assert house.vault().generation == before
    names = [line.partition(":")[0] for line in said]
    assert names == [
        "influxdb.admin", "influxdb.intake", "influxdb.collector", "influxdb.dashboards",
        "client/gatehouse-intake/key", "server/web-gateway-gw1/key", "server/web-dashboards-gw1/key",
        "devices/kitchen-01/hmac",
    ]  # fmt: skip


def test_who_has_to_be_given_the_new_one_by_hand_is_only_replaced_when_named(house: House) -> None:
    said: list[str] = []
    rotating.rotate(house.site, ["broker/*"], said.append, dry=True)
    assert said == ["broker/programs/homeassistant/password: would be replaced (0 days old)"]


def test_what_was_begun_is_gone_on_with_whatever_is_named(house: House) -> None:
    with (vault := house.vault()).transaction():
        vault.set("rotation/influxdb.intake/journal", b'{"phase": "move", "begun": "2026-01-01T00:00:00Z"}', "record")
        vault.set("rotation/influxdb.intake/former", b"former", "password")
    said: list[str] = []
    rotating.rotate(house.site, ["influxdb.admin"], said.append, dry=True)
    assert said == ["influxdb.intake: would go on (move)", "influxdb.admin: would be replaced (0 days old)"]


def test_with_another_identity_the_vault_stays_shut(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    other = house.root / "other"
    new_identity(other)
    monkeypatch.setattr(vaults, "open_vault", lambda _: Vault.open(house.root / "home.age", [other]))
    with pytest.raises(VaultError, match="not among its recipients") as told:
        rotating.rotate(house.site, [], print)
    assert "\n" not in str(told.value)


def test_the_command_ends_with_one_line_and_a_status(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from invoke import Context

    monkeypatch.setattr(common, "site", lambda _: house.site)
    with pytest.raises(SystemExit) as ended:
        credentials.rotate(Context(), only=["nobody"], site="home")
    assert str(ended.value.code).startswith("home: nothing called 'nobody'")
    with pytest.raises(SystemExit) as ended:
        credentials.rotate(Context(), only=["influxdb.intake"], site="home")
    assert str(ended.value.code) == "influxdb.intake: gw1: no SSH to 192.0.2.1 port 22: no route to host"
    assert "secret" not in capsys.readouterr().out
