"""A device's bundle as a C header: macros only, so that it may be included in any number of files."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gatehouse.identity.bundle import Bundle


def header(bundle: Bundle) -> str:
    """The text of `gatehouse_device.h`. It holds the device's secrets."""
    broker = bundle.broker
    return f"""\
/* {bundle.name} of {bundle.site}: secret. Made by Gatehouse; keep it out of version control. */
#ifndef GATEHOUSE_DEVICE_H
#define GATEHOUSE_DEVICE_H

#define GATEHOUSE_DEVICE_NAME "{bundle.name}"
#define GATEHOUSE_BROKER_HOST "{broker.host}"
#define GATEHOUSE_BROKER_PORT {broker.port}

{_certified(bundle) if bundle.psk is None else _keyed(bundle.name, bundle.psk)}
/* Signs this device's messages. */
#define GATEHOUSE_HMAC_KEY_NUMBER {bundle.hmac_key_number}
#define GATEHOUSE_HMAC_KEY {_octets(bundle.hmac_key)}
{_firmware(bundle.firmware_keys)}
#endif
"""


def _certified(bundle: Bundle) -> str:
    pins = bundle.broker.pins
    key = "" if bundle.key_pem is None else f"\n#define GATEHOUSE_KEY {_text(bundle.key_pem)}"
    return f"""\
/* PEM, as mbedTLS and WiFiClientSecure take it. */
#define GATEHOUSE_CA {_text(bundle.ca_pem)}
#define GATEHOUSE_CERTIFICATE {_text(bundle.certificate_pem)}{key}

/* SHA-256 of the broker's public key (DER SubjectPublicKeyInfo), and of the one that may replace it: accept both. */
#define GATEHOUSE_PIN {_octets(bytes.fromhex(pins.spki_sha256))}
#define GATEHOUSE_PIN_BACKUP {_octets(bytes.fromhex(pins.backup_spki_sha256))}
/* SHA-256 of the broker's certificate as it was when this was made: it changes with each renewal. */
#define GATEHOUSE_BROKER_CERTIFICATE_SHA256 {_octets(bytes.fromhex(pins.certificate_sha256))}
"""


def _keyed(name: str, psk: bytes) -> str:
    return f"""\
/* Shared with the broker (TLS-PSK): octets for mbedtls_ssl_conf_psk, text for WiFiClientSecure. */
#define GATEHOUSE_PSK_IDENTITY "{name}"
#define GATEHOUSE_PSK {_octets(psk)}
#define GATEHOUSE_PSK_HEX "{psk.hex()}"
"""


def _firmware(keys: tuple[bytes, ...]) -> str:
    if not keys:
        return ""
    names = ("GATEHOUSE_FIRMWARE_KEY", "GATEHOUSE_FIRMWARE_KEY_BACKUP")
    lines = [f"#define {name} {_octets(key)}" for name, key in zip(names, keys, strict=True)]
    return "\n".join(["", "/* Firmware is verified with one of these: public keys on P-256, X and Y. */", *lines, ""])


def _text(pem: bytes) -> str:
    return '\\\n    "' + pem.decode("ascii").rstrip("\n").replace("\n", '\\n" \\\n    "') + '\\n"'


@lru_cache(maxsize=64)
def _octets(data: bytes) -> str:
    return "{ 0x" + data.hex(",").replace(",", ", 0x") + " }"
