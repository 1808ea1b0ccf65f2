"""Publishing signed firmware: what a gateway is brought, and what is refused before anything reaches it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import firmware, publishing
from gatehouse.errors import GatehouseError
from gatehouse.updates import read
from tests.unit.desk import Desk, a_desk
from tests.unit.enrolling import a_site


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return a_desk(tmp_path, monkeypatch)


def test_a_release_is_published_once_and_shown_and_withdrawn(desk: Desk) -> None:
    desk.sign()
    assert "1.0.0 published" in desk.publish()
    found = desk.files()
    assert set(found) == {"relay/1.0.0.bin", "relay/manifest"} and found["relay/1.0.0.bin"] == b"image"
    assert "already" in desk.publish()
    (line,) = publishing.published(desk.site)
    assert line == "gw1: relay 1.0.0, counter 1, for 100 % of the devices"
    publishing.withdraw(desk.site, "relay", desk.said.append)
    assert desk.files() == {} and "withdrawn" in desk.said[-1]
    publishing.withdraw(desk.site, "relay", desk.said.append)
    assert "nothing published" in desk.said[-1]
    assert list(publishing.published(desk.site)) == ["gw1: nothing published"]


def test_a_roll_out_keeps_counter_and_image_and_widens_the_share(desk: Desk) -> None:
    desk.sign()
    desk.publish(rollout="10%")
    first = read(desk.files()["relay/manifest"])
    desk.publish(rollout="50%")
    wider = read(desk.files()["relay/manifest"])
    assert (first.share, wider.share) == (1000, 5000)
    assert (first.counter, first.seed, first.sha256) == (wider.counter, wider.seed, wider.sha256)


def test_a_release_that_goes_back_is_refused_and_nothing_changes(desk: Desk) -> None:
    desk.sign()
    desk.sign(b"newer", "1.1.0")
    desk.publish("1.1.0")
    before = desk.files()
    with pytest.raises(GatehouseError, match=r"older than 1\.1\.0"):
        desk.publish("1.0.0")
    assert desk.files() == before


def test_a_bridge_stays_beside_what_a_later_key_signed_and_images_that_nobody_needs_go(desk: Desk) -> None:
    desk.sign()
    desk.publish()
    list(firmware.make_keys(desk.site, "current"))
    desk.sign(b"bridge", "1.1.0")
    desk.publish("1.1.0")
    for number in range(2):  # by the key of the bridge: what it needs stays, and no more
        version = f"1.2.{number}"
        desk.sign(version.encode(), version)
        desk.publish(version)
        first, second = (read(entry) for entry in publishing._entries(desk.files()["relay/manifest"]))
        assert (first.version, second.version) == (version, "1.0.0")
        assert set(desk.files()) == {f"relay/{version}.bin", "relay/1.0.0.bin", "relay/manifest"}
    assert "already" in desk.publish("1.2.1")
    newest, bridge = publishing.published(desk.site)
    assert "REFUSED" not in newest + bridge and "1.0.0" in bridge


def test_what_a_minimum_counter_asks_for_stays_too(desk: Desk) -> None:
    desk.sign()
    desk.publish()
    desk.sign(b"newer", "1.1.0", minimum_counter=1)
    assert "1 earlier beside it" in desk.publish("1.1.0")
    assert [read(e).counter for e in publishing._entries(desk.files()["relay/manifest"])] == [2, 1]


def test_more_manifests_than_devices_read_are_refused_and_nothing_changes(desk: Desk) -> None:
    for number in range(5):
        desk.sign(bytes([number]), f"1.{number}.0", minimum_counter=number)
        if number < 4:
            desk.publish(f"1.{number}.0")
    before = desk.files()
    assert [read(e).counter for e in publishing._entries(before["relay/manifest"])] == [4, 3, 2, 1]
    with pytest.raises(GatehouseError, match="4 earlier releases are still needed"):
        desk.publish("1.4.0")
    assert desk.files() == before


@pytest.mark.parametrize(
    "broken", ["image flipped", "manifest flipped", "no image", "never signed", "empty image", "image of 100 MB"]
)
def test_what_devices_would_refuse_never_reaches_the_gateway(desk: Desk, broken: str) -> None:
    desk.sign()
    folder = desk.house.root / "out/firmware.signed/relay"
    image, manifest = folder / "1.0.0.bin", folder / "1.0.0.manifest"
    if broken == "image flipped":
        image.write_bytes(b"imagf")
    elif broken == "manifest flipped":
        manifest.write_bytes(manifest.read_bytes()[:-1] + bytes([manifest.read_bytes()[-1] ^ 1]))
    elif broken == "empty image":
        image.write_bytes(b"")
    elif broken == "image of 100 MB":
        with image.open("r+b") as file:
            file.truncate(100 * 10**6)
    else:
        image.unlink()
        if broken == "never signed":
            manifest.unlink()
    with pytest.raises(GatehouseError) as refused:
        desk.publish()
    assert "\n" not in str(refused.value) and "sign" in str(refused.value)
    assert desk.files() == {}


@pytest.mark.parametrize("written", ["image", "manifest"])
def test_a_gateway_that_is_full_keeps_what_it_had(desk: Desk, written: str) -> None:
    desk.sign()
    desk.publish()
    before = desk.files()
    desk.sign(b"newer", "1.1.0")
    blocked = desk.served / "relay" / {"image": ".new.1.1.0.bin", "manifest": ".new.manifest"}[written]
    blocked.symlink_to("/dev/full")
    with pytest.raises(GatehouseError, match="not written"):
        desk.publish("1.1.0")
    assert desk.files() == before  # no image either that no manifest names: it would take room from what comes next
    assert not blocked.is_symlink()
    assert "1.1.0 published" in desk.publish("1.1.0")  # once there is room


def test_a_roll_out_for_which_the_vault_has_no_key_changes_nothing(desk: Desk) -> None:
    desk.sign()
    desk.publish(rollout="10%")
    before, vault = desk.files(), desk.house.vault()
    with vault.transaction():
        vault.delete("firmware/keys/1/key")
    with pytest.raises(GatehouseError, match="no secret named 'firmware/keys/1/key'"):
        desk.publish(rollout="50%")
    assert desk.files() == before
    assert "already" in desk.publish()  # what was signed can still be brought to a gateway


def test_what_was_changed_on_the_gateway_is_told(desk: Desk) -> None:
    desk.sign()
    desk.publish()
    (desk.served / "relay/1.0.0.bin").write_bytes(b"imagf")
    (line,) = publishing.published(desk.site)
    assert "REFUSED by devices: its image is missing or another one" in line
    (desk.served / "relay/manifest").write_bytes(b"")
    (line,) = publishing.published(desk.site)
    assert "BROKEN" in line
    assert "published, for" in desk.publish()


def test_a_site_without_an_update_server_and_names_that_are_none_are_refused(desk: Desk) -> None:
    with pytest.raises(GatehouseError, match="add updates=True"):
        publishing.publish(a_site(), "relay", "1.0.0", print)
    with pytest.raises(GatehouseError, match="no model"):
        publishing.publish(desk.site, "../relay", "1.0.0", print)
    with pytest.raises(GatehouseError, match="no version"):
        publishing.publish(desk.site, "relay", "../1", print)
    with pytest.raises(GatehouseError, match="no model"):
        publishing.withdraw(desk.site, "", print)
