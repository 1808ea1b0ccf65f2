"""Tokens for the device API: good for an hour, for one site and one service, and signed by nobody else."""

from __future__ import annotations

import base64
import datetime
import json

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from gatehouse.api.tokens import TokenRefused, check
from gatehouse.identity import jwt
from gatehouse.identity.store import SecretStore

API = "https://gateway.home.arpa/api"
HOUR = datetime.timedelta(hours=1)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@pytest.fixture
def vault() -> SecretStore:
    return SecretStore()


@pytest.fixture
def token(vault: SecretStore) -> str:
    return jwt.issue(vault, "home", "anna", API)


def refusal(token: str, vault: SecretStore, site: str = "home", audience: str = API) -> str:
    with pytest.raises(TokenRefused) as caught:
        check(token, jwt.public_keys(vault), site, audience)
    message = str(caught.value)
    assert "\n" not in message and caught.value.__cause__ is None
    assert len(token) < 10 or token not in message
    return message


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def private_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def forged(vault: SecretStore, key: object = None, algorithm: str = "ES256", kid: str = "", **changes: object) -> str:
    """A token with other claims, signed with the site's own key unless another is given."""
    moment = int(now().timestamp())
    claims = {"iss": "gatehouse:home", "sub": "anna", "aud": API, "iat": moment, "exp": moment + 60, "jti": "1"}
    claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    signing = key or vault.get_text("api/jwt/key")
    headers = {"kid": kid or next(iter(jwt.public_keys(vault)))}
    return pyjwt.encode(claims, signing, algorithm=algorithm, headers=headers)  # type: ignore[arg-type]


def test_a_token_says_who_it_is_for_and_until_when(vault, token):
    claims = check(token, jwt.public_keys(vault), "home", API)
    assert claims.subject == "anna"
    assert claims.expires - claims.issued == HOUR
    assert abs(now() - claims.issued) < datetime.timedelta(minutes=5)
    assert check(jwt.issue(vault, "home", "anna", API), jwt.public_keys(vault), "home", API) != claims
    assert check(forged(vault), jwt.public_keys(vault), "home", API).subject == "anna"


def test_an_expired_token_is_refused_and_one_that_ends_soon_is_not(vault):
    old = jwt.issue(vault, "home", "anna", API, HOUR, now() - 2 * HOUR)
    assert "its time is over" in refusal(old, vault)
    soon = jwt.issue(vault, "home", "anna", API, HOUR, now() - datetime.timedelta(minutes=55))
    assert check(soon, jwt.public_keys(vault), "home", API).subject == "anna"


def test_a_token_from_the_future_is_refused(vault):
    assert "compare the clocks" in refusal(jwt.issue(vault, "home", "anna", API, HOUR, now() + HOUR), vault)


def test_a_token_for_another_service_or_site_is_refused(vault, token):
    assert "another site or service" in refusal(token, vault, audience="https://other.home.arpa/api")
    assert "another site or service" in refusal(token, vault, site="shed")
    assert "another site or service" in refusal(forged(vault, aud=[f"{API}/more"]), vault)


def test_a_token_signed_by_another_key_is_refused(vault, token):
    stranger = SecretStore()
    theirs = jwt.issue(stranger, "home", "anna", API)
    assert "a key that is not" in refusal(theirs, vault)
    assert "not signed by this site" in refusal(forged(vault, stranger.get_text("api/jwt/key")), vault)
    assert check(theirs, jwt.public_keys(stranger), "home", API).subject == "anna"


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE"])
def test_a_token_that_says_it_needs_no_signature_is_refused(vault, token, algorithm):
    _, claims, signature = token.split(".")
    kid = next(iter(jwt.public_keys(vault)))
    for end in ("", signature):
        assert "not signed by this site" in refusal(f"{part({'alg': algorithm, 'kid': kid})}.{claims}.{end}", vault)


def test_a_token_of_another_algorithm_is_refused_even_when_its_signature_fits(vault):
    jwt.issue(vault, "home", "anna", API)
    kid, public = next(iter(jwt.public_keys(vault).items()))
    # the public key as the secret of an HMAC: what a checker falls for that asks the token for the algorithm
    claims = forged(vault).split(".")[1]
    head = part({"alg": "HS256", "kid": kid, "typ": "JWT"})
    algorithm = pyjwt.algorithms.HMACAlgorithm(pyjwt.algorithms.HMACAlgorithm.SHA256)
    signature = base64.urlsafe_b64encode(algorithm.sign(f"{head}.{claims}".encode(), public.encode())).rstrip(b"=")
    assert "not signed by this site" in refusal(f"{head}.{claims}.{signature.decode()}", vault)
    rsa_key = rsa.generate_private_key(65537, 2048)
    assert "not signed by this site" in refusal(forged(vault, private_pem(rsa_key), "RS256"), vault)


@pytest.mark.parametrize("claim", ["iss", "sub", "aud", "iat", "exp", "jti"])
def test_a_token_that_lacks_a_claim_is_refused(vault, token, claim):
    assert refusal(forged(vault, **{claim: None}), vault)


@pytest.mark.parametrize(
    ("claim", "value"),
    [("exp", 10**30), ("exp", "soon"), ("exp", 1e308), ("iat", "now"), ("iat", 0), ("sub", 7), ("jti", 7), ("aud", 7)],
)
def test_a_token_that_claims_odd_things_is_refused(vault, token, claim, value):
    try:
        odd = forged(vault, **{claim: value})
    except TypeError:
        head, _, signature = token.split(".")
        odd = f"{head}.{part({claim: value})}.{signature}"
    assert refusal(odd, vault)


def test_a_token_that_claims_a_longer_life_than_any_is_refused(vault, token):
    moment = int(now().timestamp())
    assert "more than this site ever grants" in refusal(forged(vault, exp=moment + 25 * 3600), vault)
    assert check(forged(vault, exp=moment + 23 * 3600), jwt.public_keys(vault), "home", API)


@pytest.mark.parametrize("hours", [0, -1, 25, 24 * 365])
def test_no_token_is_issued_for_longer_than_a_day_or_not_at_all(vault, hours):
    with pytest.raises(TokenRefused, match="ask for up to 24 hours"):
        jwt.issue(vault, "home", "anna", API, hours * HOUR)
    assert jwt.issue(vault, "home", "anna", API, 24 * HOUR)


@pytest.mark.parametrize("subject", ["", "a\nb", "x" * 65])
def test_a_token_is_for_somebody(vault, subject):
    with pytest.raises(TokenRefused, match="name who it is for"):
        jwt.issue(vault, "home", subject, API)


def test_after_a_rotation_tokens_of_both_keys_are_good_and_after_the_next_the_first_is_not(vault, token):
    jwt.rotate(vault)
    new = jwt.issue(vault, "home", "anna", API)
    for each in (token, new):
        assert check(each, jwt.public_keys(vault), "home", API).subject == "anna"
    jwt.rotate(vault)
    assert "no more, this site's" in refusal(token, vault)
    assert check(new, jwt.public_keys(vault), "home", API).subject == "anna"


def test_a_rotation_at_once_ends_every_token(vault, token):
    jwt.rotate(vault, at_once=True)
    assert "no more, this site's" in refusal(token, vault)
    assert len(jwt.public_keys(vault)) == 1


def test_a_gateway_is_given_public_keys_only(vault, token):
    (pem,) = jwt.public_keys(vault).values()
    assert pem.startswith("-----BEGIN PUBLIC KEY-----")
    assert "PRIVATE" not in pem


@given(text=st.text(max_size=80) | st.text(alphabet="abAB01._-=", max_size=80) | st.just("a" * 5000))
@settings(max_examples=200, deadline=None)
def test_any_text_for_a_token_gives_one_clear_refusal(text):
    vault = SecretStore()
    jwt.issue(vault, "home", "anna", API)
    with pytest.raises(TokenRefused) as caught:
        check(text, jwt.public_keys(vault), "home", API)
    assert str(caught.value).startswith("token: ")


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_token_with_any_character_changed_is_refused(data):
    vault = SecretStore()
    good = jwt.issue(vault, "home", "anna", API)
    at = data.draw(st.integers(0, len(good) - 1).filter(lambda i: good[i] != "." and i + 1 < len(good)))
    other = data.draw(st.sampled_from("abcdefgXYZ0189-_").filter(lambda c: c != good[at]))
    if good[at + 1 : at + 2] in ("", "."):
        return  # the last character of a part has bits that mean nothing
    with pytest.raises(TokenRefused):
        check(good[:at] + other + good[at + 1 :], jwt.public_keys(vault), "home", API)
