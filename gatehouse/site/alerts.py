"""Alerts as a site wants them: from which number on something is one, and which ways they are told."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from gatehouse.site.declaration import Declaration
from gatehouse.site.problems import Problem

SERVICE = "alerts"
_MAILBOX = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_SILENCE = re.compile(r"never|([2-9]|[1-9][0-9]{1,3})m|[1-9][0-9]{0,2}[hd]")  # readings are a minute apart
_URL = re.compile(r"https://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?)(:[0-9]{1,5})?(/[!-~]*)?")


class Webhook(Declaration):
    """Where alerts are sent by HTTPS (POST, JSON). The body is signed (HMAC-SHA256) with a secret of the vault's.

    `trust` is a file (PEM) with what vouches for that server, where that is not among what Debian trusts.
    """

    url: str = Field(max_length=1000)
    trust: Path | None = None

    @field_validator("url")
    @classmethod
    def _is_https(cls, given: str) -> str:
        # Not quoted: what stands in there may be somebody's password.
        if "@" in given.removeprefix("https://").partition("/")[0]:
            raise ValueError("holds a login|leave it out: the signature says who sends")
        if not _URL.fullmatch(given):
            raise ValueError("is no HTTPS address|use one such as https://alerts.example.org/gateway")
        return given


class Email(Declaration):
    """Alerts by e-mail, submitted to a server (RFC 6409) as `user`, with the password that is in the vault.

    `security` is `starttls` (port 587), or `tls` from the first byte on (port 465); there is nothing in the clear.
    `trust` is as a webhook's.
    """

    server: str = Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$")
    port: int = Field(default=587, ge=1, le=65535)
    security: Literal["starttls", "tls"] = "starttls"
    user: str = Field(min_length=1, max_length=200)
    sender: str
    to: tuple[str, ...] = Field(min_length=1, max_length=10)
    trust: Path | None = None

    @field_validator("sender")
    @classmethod
    def _is_a_mailbox(cls, given: str) -> str:
        if not _MAILBOX.fullmatch(given):
            raise ValueError(f"{given[:80]!r} is no e-mail address|use one such as gateway@example.org")
        return given

    @field_validator("to")
    @classmethod
    def _are_mailboxes(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(cls._is_a_mailbox, given))

    @model_validator(mode="after")
    def _speaks_tls_as_its_port_does(self) -> Self:
        if (self.port, self.security) in ((465, "starttls"), (587, "tls")):
            other = {"starttls": "tls", "tls": "starttls"}[self.security]
            raise ValueError(f"port {self.port} does not go with {self.security!r}|use security={other!r}")
        return self


class Thresholds(Declaration):
    """From which number on something is an alert. What is counted is counted within `window_seconds`.

    `rejected_messages` of one device by the intake; `refused_packets` of one device by the firewall, `unknown_packets`
    of all hardware addresses that are no device's; `broker_refusals` of connections, at TLS or at the login;
    `dropped_packets` of a segment; `takeovers` of one client's session by another with its certificate, where both come
    from one address. A device's messages, and their size, are unusual from `unusual_times` as many on as is usual for
    it, or `model_times` as many as for others of its model; fewer than `unusual_messages`, or smaller than
    `unusual_bytes`, never are. `certificate_days` count where a certificate's life isn't known: elsewhere it is a fifth
    of that.
    """

    rejected_messages: int = Field(default=10, ge=1, le=1_000_000)
    refused_packets: int = Field(default=500, ge=1, le=1_000_000_000)
    unknown_packets: int = Field(default=500, ge=1, le=1_000_000_000)
    broker_refusals: int = Field(default=20, ge=1, le=1_000_000)
    dropped_packets: int = Field(default=10_000, ge=1, le=1_000_000_000)
    certificate_days: int = Field(default=14, ge=1, le=365)
    disk_free_percent: int = Field(default=10, ge=1, le=90)
    verification_hours: int = Field(default=26, ge=1, le=720)
    takeovers: int = Field(default=10, ge=2, le=1_000_000)
    unusual_times: float = Field(default=4, ge=1.5, le=1000)
    model_times: float = Field(default=10, ge=1.5, le=1000)
    unusual_messages: int = Field(default=60, ge=1, le=1_000_000)
    unusual_bytes: int = Field(default=512, ge=1, le=1_000_000)


class SilentAfter(Declaration):
    """For how long nothing may come of a device: by its model, or of one device whatever its model is. `15m`, `2h`,
    `1d`, or `never` where it may be silent; so may all others be.
    """

    models: dict[str, str] = {}
    devices: dict[str, str] = {}

    @field_validator("models", "devices")
    @classmethod
    def _are_times(cls, given: dict[str, str]) -> dict[str, str]:
        for name, after in given.items():
            if not _SILENCE.fullmatch(after):
                raise ValueError(
                    f"{name}: {after[:20]!r} is no time|use one such as 15m, 2h, 1d, at least 2m, or never"
                )
        return given

    def of(self, name: str, model: str) -> str:
        """What holds for a device; empty where it may be silent."""
        found = self.devices.get(name, self.models.get(model, ""))
        return "" if found == "never" else found


class Alerts(Declaration):
    """What is told, and how: `mqtt` to the topic `gateway/NAME/alerts` of the gateway's own broker, by a `webhook`,
    by `email`.

    An alert ends when it has been quiet for `calm_seconds`. What is usual for a device is only known after
    `learning_hours`.
    """

    mqtt: bool = False
    webhook: Webhook | None = None
    email: Email | None = None
    thresholds: Thresholds = Thresholds()
    silent_after: SilentAfter = SilentAfter()
    window_seconds: int = Field(default=600, ge=10, le=3600)
    calm_seconds: int = Field(default=300, ge=0, le=86_400)
    learning_hours: int = Field(default=24, ge=1, le=720)


def topic(gateway: str) -> str:
    """Where a gateway publishes its alerts."""
    return f"gateway/{gateway}/alerts"


def _part(given: Any, name: str) -> Any:
    """A part of what the site says, before it is known to be sound."""
    return given.get(name) if isinstance(given, Mapping) else getattr(given, name, None)


def alert_problems(sound: Mapping[str, Any]) -> Iterator[Problem]:
    """What a gateway goes without and its alerts need."""
    given = sound["given"].get(SERVICE)
    if given is None or given is False:
        return
    devices = _part(_part(given, "silent_after"), "devices")
    for name in sorted(
        {*devices} - {device.name for device in sound["devices"]} if isinstance(devices, Mapping) else ()
    ):
        yield Problem(
            "alerts silent_after devices", f"'{name}' is no device of the registry", "take it out, or enrol it"
        )
    wanted = {"collector": "alerts need the collector's readings"}
    if _part(given, "mqtt") is True:
        wanted["mosquitto"] = "alerts over MQTT need its broker"
    for name, gateway in sound["gateways"].items():
        for service, why in wanted.items():
            if service in gateway.without and SERVICE not in gateway.without:
                yield Problem(
                    f"gateway '{name}' without", why, f"leave '{service}' on it, or take '{SERVICE}' off it, too"
                )
