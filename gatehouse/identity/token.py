"""An authority's key in a hardware token (PKCS #11 v2.40, OASIS): made there, used there, never read out.

The library for it, python-pkcs11, is only loaded where a token is used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from gatehouse.identity.authority import PkiError

if TYPE_CHECKING:
    from pkcs11 import Session

_HALF = 32
"""Octets of each of the two integers of a signature on P-256, as PKCS #11 gives it (§2.3.1, "EC signatures")."""

_sessions: dict[tuple[str, str], Session] = {}  # a token knows one login a process, whoever of it logs in


@dataclass(frozen=True)
class Token:
    """A token: the PKCS #11 module (path of a shared library), the token's label, and who tells its user PIN.

    `key_label` is how the labels of keys made in it begin.
    """

    module: str
    label: str
    pin: Callable[[], str] = field(repr=False)
    key_label: str = ""

    def obtain_key(self, label: str) -> ec.EllipticCurvePublicKey:
        """Return the public half of the key pair on P-256 of that label, made in the token if it has none.

        Raises `PkiError`, for all that is wrong with module, token or PIN.
        """
        import pkcs11
        from pkcs11.util.ec import encode_ec_public_key, encode_named_curve_parameters

        try:
            session = self._open()
            found = list(session.get_objects({pkcs11.Attribute.LABEL: label}))
            public = next((key for key in found if isinstance(key, pkcs11.PublicKey)), None)
            if public is None:
                curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
                parameters = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
                use = pkcs11.MechanismFlag.SIGN | pkcs11.MechanismFlag.VERIFY
                public, _ = parameters.generate_keypair(label=label, store=True, capabilities=use)
            key = serialization.load_der_public_key(encode_ec_public_key(public))
        except (pkcs11.PKCS11Error, ValueError) as error:
            raise self._failed(error) from None
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise PkiError(f"token '{self.label}': its key '{label}' is not on P-256; remove it there")
        return key

    def sign(self, label: str, digest: bytes) -> bytes:
        """Return the signature of a SHA-256 digest by the private key of that label, DER. Raises `PkiError`."""
        import pkcs11

        try:
            key: Any = self._open().get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, label=label)
            raw: bytes = key.sign(digest, mechanism=pkcs11.Mechanism.ECDSA)
        except pkcs11.PKCS11Error as error:
            raise self._failed(error) from None
        first, second = (int.from_bytes(half, "big") for half in (raw[:_HALF], raw[_HALF:]))
        return utils.encode_dss_signature(first, second)

    def destroy_key(self, label: str) -> None:
        """Destroy both halves of a key pair in the token; one that is not there is no error. Raises `PkiError`."""
        import pkcs11

        try:
            for found in list(self._open().get_objects({pkcs11.Attribute.LABEL: label})):
                found.destroy()
        except pkcs11.PKCS11Error as error:
            raise self._failed(error) from None

    def _open(self) -> Session:
        import pkcs11

        where = (self.module, self.label)
        if where not in _sessions:
            # once: a token locks itself after a few wrong PINs
            _sessions[where] = (
                pkcs11.lib(self.module).get_token(token_label=self.label).open(rw=True, user_pin=self.pin())
            )
        return _sessions[where]

    def _failed(self, error: Exception) -> PkiError:
        import pkcs11

        where = f"token '{self.label}'"
        match error:
            case pkcs11.NoSuchToken():
                return PkiError(
                    f"{where}: {self.module} shows no token of that label; plug it in, or correct the label"
                )
            case pkcs11.PinIncorrect() | pkcs11.PinLenRange() | pkcs11.PinInvalid():
                return PkiError(f"{where}: the PIN is wrong; it locks itself after a few wrong ones")
            case pkcs11.PinLocked():
                return PkiError(f"{where}: is locked after wrong PINs; unlock it with its security officer's PIN")
            case pkcs11.NoSuchKey():
                return PkiError(f"{where}: has not the key any more; restore the token, or roll the CA over")
        return PkiError(
            f"{where} ({self.module}): {str(error) or type(error).__name__}; check the module and the token"
        )


class TokenSigner:
    """A key in a token as an authority uses it. Its public half is known, so only signing needs the token and a PIN."""

    def __init__(self, token: Token | None, name: str, label: str, public_key: ec.EllipticCurvePublicKey) -> None:
        self._token, self._name, self._label, self._public_key = token, name, label, public_key

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Return the public half."""
        return self._public_key

    def sign(self, data: bytes, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """Return the signature of data, DER `ECDSA-Sig-Value`, which is checked first. Raises `PkiError`."""
        if self._token is None:
            raise PkiError(
                f"its key is in the token '{self._name}'; name that under `authority` in the site, or roll the CA over"
            )
        if not isinstance(signature_algorithm.algorithm, hashes.SHA256):
            raise PkiError(f"token '{self._name}': signs SHA-256 only")
        signature = self._token.sign(self._label, hashlib.sha256(data).digest())
        try:
            self._public_key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        except Exception:  # InvalidSignature: of another key under that label, or a broken token
            raise PkiError(f"token '{self._name}': signs with another key than the authority's; restore it") from None
        return signature
