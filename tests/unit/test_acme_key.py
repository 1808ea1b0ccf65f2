"""The key for a public CA's challenges over DNS: what is none is refused, and what is one is in the vault's file."""

from __future__ import annotations

import base64
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deploy import acmekey
from gatehouse.identity import Vault, new_identity

KEY = base64.b64encode(b"k" * 32).decode()


def site(dns: bool = True) -> Any:
    """As much of a site as is looked at."""
    return SimpleNamespace(name="home", acme=SimpleNamespace(dns=object() if dns else None))


def test_a_key_is_kept_for_whoever_opens_the_vault_next_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Vault.create(tmp_path / "vault.age", [new_identity(tmp_path / "identity")])

    def vault(_: Any) -> Vault:
        return Vault.open(tmp_path / "vault.age", identities=[tmp_path / "identity"])

    monkeypatch.setattr(acmekey.vaults, "open_vault", vault)
    said = acmekey.keep(site(), f'"{KEY}"\n')
    assert KEY not in said
    assert vault(site()).get_text(acmekey.NAME) == KEY


@pytest.mark.parametrize(
    ("given", "dns", "why"),
    [
        ("", True, "0 bytes are no key"),
        ("?", True, "no key in base64"),
        ("c2hvcnQ=", True, "5 bytes are no key"),
        (KEY, False, "do not go over DNS"),
    ],
)
def test_what_is_no_key_or_has_no_use_is_refused_in_a_line(given: str, dns: bool, why: str) -> None:
    with pytest.raises(acmekey.AcmeKeyError, match=why) as told:
        acmekey.keep(site(dns), given)
    assert "\n" not in str(told.value)
