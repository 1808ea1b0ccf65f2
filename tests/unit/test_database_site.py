"""What a site says of its database, and where the package of an engine comes from that Debian hasn't got."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from gatehouse.site import Site, SiteError, derive, seconds
from roles import declared, influxdb, packages
from roles.influxdb.deploy import shard
from tests.unit.test_site_model import description

DAY = 86_400
PACKAGE = {"file": "influxdb2_2.7.12-1_amd64.deb", "sha256": hashlib.sha256(b"a package").hexdigest()}


def site(**database: Any) -> Site:
    return Site(**{**description(), "services": declared(), "database": database})


def problem(**database: Any) -> str:
    with pytest.raises(SiteError) as caught:
        site(**database)
    return str(caught.value)


def test_the_default_is_debian_s_engine_a_short_retention_and_no_summaries() -> None:
    database = site().database
    assert (database.engine, seconds(database.retention), database.summaries) == ("influxdb1", 30 * DAY, None)
    assert "influxdb" in site().service("influxdb").packages


def test_another_engine_brings_none_of_debian_s_packages_and_no_rpc() -> None:
    service = site(engine="influxdb2", package=PACKAGE).service("influxdb")
    assert "influxdb" not in service.packages
    assert [listener.name for listener in service.listeners] == ["https"]
    assert [listener.name for listener in site().service("influxdb").listeners] == ["https", "rpc"]


@pytest.mark.parametrize(
    ("database", "said"),
    [
        ({"engine": "influxdb3"}, "engine"),
        ({"engine": "postgresql"}, "engine"),
        ({"retention": "for ever"}, "retention"),
        ({"retention": "0d"}, "retention"),
        ({"retention": 30}, "retention"),
        ({"retention": "30d", "summaries": {"retention": "2w"}}, "keep them longer"),
        ({"summaries": {"every": "1y"}}, "every"),
        ({"package": PACKAGE}, "Debian's own"),
        ({"engine": "influxdb2", "package": {**PACKAGE, "sha256": "abc"}}, "sha256"),
        ({"engine": "influxdb2", "package": {**PACKAGE, "file": "../../etc/passwd"}}, "file"),
        ({"retain": "30d"}, "unknown key"),
    ],
)
def test_a_slip_in_the_database_s_description_is_told_in_the_operator_s_words(
    database: dict[str, Any], said: str
) -> None:
    text = problem(**database)
    assert "database" in text and said in text and "Traceback" not in text and "pydantic" not in text


def test_only_accounts_with_business_there_may_connect_to_it_on_the_gateway() -> None:
    rules = {rule.comment: rule.listener.accounts for rule in derive(site(), "gw").local}
    assert rules["influxdb https"] == ("root", *influxdb.RUNS_AS.values())
    assert rules["influxdb rpc"] == ("root",)
    assert not [rule for rule in derive(site(), "gw").input if rule.service == "influxdb"]


@pytest.mark.parametrize(("retention", "portion"), [("12h", 3600), ("2d", 3600), ("30d", DAY), ("26w", 7 * DAY)])
def test_what_is_deleted_at_a_time_is_small_against_what_is_kept(retention: str, portion: int) -> None:
    assert shard(seconds(retention)) == portion
    assert portion * 12 <= seconds(retention)


def test_a_package_is_taken_only_if_it_is_the_one_that_the_site_pins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(packages.FOLDER, str(tmp_path))
    pinned = site(engine="influxdb2", package=PACKAGE)
    assert packages.local(pinned, pinned.database.package) is None
    assert f"is not in {tmp_path}" in packages.why_not("database", pinned.database.package)
    file = tmp_path / PACKAGE["file"]
    file.write_bytes(b"a package")
    assert packages.local(pinned, pinned.database.package) == file
    file.write_bytes(b"another package")
    with pytest.raises(packages.PackageRefused, match="not installed"):
        packages.local(pinned, pinned.database.package)


def test_without_a_folder_or_a_pin_there_is_no_package_and_it_is_said_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(packages.FOLDER, raising=False)
    pinned = site(engine="influxdb2", package=PACKAGE)
    assert packages.local(pinned, pinned.database.package) is None
    assert "GATEHOUSE_PACKAGES names no folder" in packages.why_not("database", pinned.database.package)
    monkeypatch.setenv(packages.FOLDER, str(tmp_path))
    assert packages.local(pinned, None) is None
    assert "add `package`" in packages.why_not("database", None)
