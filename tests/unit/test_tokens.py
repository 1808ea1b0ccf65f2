"""The operator's commands for tokens of the device API: what they print, whom it lets in, and how they are ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from invoke import Context

from commands import common, credentials
from deploy import tokens, vaults
from deploy.data import DataError
from gatehouse.api.tokens import Claims, TokenRefused, of_request
from gatehouse.identity import jwt
from tests.unit.enrolling import House, a_house, a_site


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    made = a_house(tmp_path)
    monkeypatch.setattr(vaults, "open_vault", lambda _: made.vault())
    return made


def shown(house: House, authorization: str | None, gateway: str = "gw1") -> Claims:
    """What a gateway's API makes of a header."""
    return of_request(authorization, jwt.public_keys(house.vault()), house.site.name, gateway)


def test_the_command_prints_the_token_alone_and_the_api_of_that_gateway_takes_it(house, monkeypatch, capsys) -> None:
    monkeypatch.setattr(common, "site", lambda _: house.site)
    credentials.token_issue(Context(), subject="anna", hours="2")
    printed = capsys.readouterr()
    token = printed.out.rstrip("\n")
    claims = shown(house, f"Bearer {token}")
    assert (claims.subject, claims.expires - claims.issued) == ("anna", timedelta(hours=2))
    assert printed.err.startswith("gw1: for anna, until ") and "./kit harden --site home" in printed.err
    assert token not in printed.err and "\n" not in token
    with pytest.raises(TokenRefused, match="another site or service"):
        shown(house, f"Bearer {token}", "gw2")
    credentials.token_issue(Context(), subject="bert")
    assert "harden" not in capsys.readouterr().err, "the gateways have the key already"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YW5uYTpw", "bearer x.y.z", "Bearer a b"])
def test_a_request_without_a_good_token_is_refused_in_one_line_and_one_with_it_is_not(house, header) -> None:
    token = tokens.issue(house.site, "anna", "", "1").token
    assert shown(house, f"bearer  {token}").subject == "anna"
    with pytest.raises(TokenRefused) as refused:
        shown(house, header)
    assert "\n" not in str(refused.value)


def test_a_token_of_an_hour_ago_is_refused(house) -> None:
    before = datetime.now(UTC) - timedelta(hours=1, minutes=1)
    issued = tokens.issue(house.site, "anna", "gw1", "2", before).token
    assert shown(house, f"Bearer {issued}").subject == "anna"
    with pytest.raises(TokenRefused, match="its time is over"):
        tokens.issue(house.site, "anna", "gw1", "1", before)


@pytest.mark.parametrize("hours", ["0", "-1", "24.1", "nan", "inf", "1e300", "an hour", ""])
def test_no_token_is_issued_for_such_a_time_and_no_key_is_made_for_it(house, hours) -> None:
    with pytest.raises(TokenRefused, match="ask for up to 24"):
        tokens.issue(house.site, "anna", "", hours)
    assert jwt.public_keys(house.vault()) == {}


def test_where_there_are_several_gateways_one_is_named(house) -> None:
    two = a_site(gateways=2)
    with pytest.raises(DataError, match="--gateway: gw1, gw2"):
        tokens.issue(two, "anna", "", "1")
    with pytest.raises(DataError, match="no gateway 'gw3'"):
        tokens.issue(two, "anna", "gw3", "1")
    token = tokens.issue(two, "anna", "gw2", "1").token
    assert shown(house, f"Bearer {token}", "gw2").subject == "anna"


def test_a_new_key_leaves_the_tokens_there_are_or_ends_them_at_once(house) -> None:
    token = tokens.issue(house.site, "anna", "", "1").token
    assert "are good until they end" in tokens.rotate(house.site, at_once=False)
    assert shown(house, f"Bearer {token}").subject == "anna"
    assert "those of the former one end." in tokens.rotate(house.site, at_once=True)
    with pytest.raises(TokenRefused, match="no more, this site's"):
        shown(house, f"Bearer {token}")
    assert shown(house, f"Bearer {tokens.issue(house.site, 'anna', '', 1).token}").subject == "anna"
