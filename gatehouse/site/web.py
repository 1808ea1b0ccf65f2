"""The web as a site wants it: how strict the HTTPS front is, and which public CA vouches for its public names."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from gatehouse.site.declaration import Declaration

PublicName = Annotated[
    str, StringConstraints(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])$")
]
Url = Annotated[str, StringConstraints(pattern=r"^https://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._~/-]*)?$")]

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
LETS_ENCRYPT_STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"


class Web(Declaration):
    """The HTTPS front: Mozilla's profile of TLS, and how often an address may try to log in (requests a minute)."""

    profile: Literal["modern", "intermediate"] = "intermediate"
    hsts_days: int = Field(default=730, ge=1, le=3650)
    logins_per_minute: int = Field(default=10, ge=1, le=600)
    largest_request_bytes: int = Field(default=1_048_576, ge=1024, le=1_073_741_824)


class DnsUpdates(Declaration):
    """Where DNS-01 puts its challenges: a name server that takes updates signed with a TSIG key (RFC 2136, RFC 8945).

    The key itself is in the vault, as `acme/tsig` (base64, as `tsig-keygen` prints it).
    """

    server: IPv4Address | IPv6Address
    port: int = Field(default=53, ge=1, le=65535)
    key: str = Field(pattern=r"^[A-Za-z0-9._-]{1,120}$")
    algorithm: Literal["HMAC-SHA256", "HMAC-SHA384", "HMAC-SHA512"] = "HMAC-SHA256"
    patience: int = Field(default=60, ge=1, le=3600)


class Acme(Declaration):
    """The public CA, by its ACME directory (RFC 8555 §7.1.1), and what each certificate has to be.

    `staging` is asked first for a name that has no certificate yet. `dns` has challenges go over DNS instead of port
    80. `renew_at` is the fraction of a certificate's life after which it is renewed. `anchors` is a file (PEM) with the
    roots that vouch for the certificates, `trust` one with what vouches for the directory's own server, each where that
    is not among those that Debian trusts.
    """

    directory: Url = LETS_ENCRYPT
    staging: Url | None = None
    email: str | None = Field(default=None, pattern=r"^[^@\s]+@[^@\s]+$")
    dns: DnsUpdates | None = None
    renew_at: float = Field(default=2 / 3, ge=0.1, le=0.9)
    trust: Path | None = None
    anchors: Path | None = None

    @model_validator(mode="after")
    def _tries_before_it_counts(self) -> Self:
        if self.staging is None and self.directory == LETS_ENCRYPT:
            object.__setattr__(self, "staging", LETS_ENCRYPT_STAGING)
        return self
