"""TLS 1.2 cipher suites and groups by their numbers (IANA): those that nobody must be given, and sound ones.

By number, because the TLS library of whoever asks has most of the former no longer.
"""

from __future__ import annotations

# What protects nothing, or less than 128 bits (RFC 9325 §4.1): with RSA and with ECDSA, where there are both.
WEAK = {
    "no encryption": (0x0001, 0x0002, 0x003B, 0xC006, 0xC010),
    "nobody's certificate": (0x0018, 0x001B, 0x0034, 0x003A, 0x006C, 0x00A6, 0xC017, 0xC018, 0xC019),
    "RC4": (0x0004, 0x0005, 0xC007, 0xC011),
    "less than 112 bits": (0x0003, 0x0006, 0x0008, 0x0009, 0x0012, 0x0015),
    "less than 128 bits": (0x000A, 0x0013, 0x0016, 0xC008, 0xC012),
}
# Whoever has the server's key later reads all that was said: RSA, DH and ECDH whose key is the certificate's.
STATIC = {
    "static RSA": (0x002F, 0x0035, 0x003C, 0x003D, 0x009C, 0x009D),
    "static DH": (0x0030, 0x0031, 0x003E, 0x003F, 0x00A0, 0x00A4),
    "static ECDH": (0xC004, 0xC005, 0xC00E, 0xC00F, 0xC02D, 0xC031),
}
ECDSA_GCM, RSA_GCM = (0xC02B, 0xC02C), (0xC02F, 0xC030)
"""ECDHE with AES-GCM (RFC 9325 §4.2)."""
SOUND = (*ECDSA_GCM, *RSA_GCM, 0xCCA9, 0xCCA8)
"""The same, and with ChaCha20-Poly1305 (RFC 7905)."""

X25519, P256, P384, P521 = 29, 23, 24, 25
GROUPS = (X25519, P256, P384, P521)
SMALL_GROUPS = (*range(1, 6), *range(15, 20))
"""Curves of less than 224 bits: sect163k1 to sect193r2, secp160k1 to secp192r1 (RFC 8422 §5.1.1)."""

RENEGOTIATION_INFO = 0xFF01  # RFC 5746 §3.2
EXTENDED_MASTER_SECRET = 23  # RFC 7627 §5.1
PROTOCOL_VERSION = 70
"""The alert of a server that speaks no TLS 1.2 (RFC 5246 §7.2.2)."""
