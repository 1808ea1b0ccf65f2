"""Tickets for later TLS sessions, as OpenSSL's client shows them."""

from __future__ import annotations

from tests.compliance.handshakes import ticket_bytes

KEY_NAME = "    0000 - 8a cc cd 47 7f 35 c1 a1-ac d0 84 f9 52 6d 25 6f   ...G.5......Rm%o\n"
REST = "    0010 - 3f be 6d 92 c3 b2 da b2-06 40 4e af b0 e6 06 a3   ?.m......@N.....\n"
LAST = "    0020 - 3f be 6d                                          ?.m\n"


def test_the_length_of_each_ticket_is_that_of_its_dump():
    said = f"TLSv1.3\n    TLS session ticket:\n{KEY_NAME}{REST}\n    Start Time: 1\n---\n    TLS session ticket:\n"
    assert ticket_bytes(f"{said}{KEY_NAME}{REST}{LAST}\n    Start Time: 1\n") == [32, 35]


def test_where_none_is_shown_there_is_none():
    assert ticket_bytes("New, TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384\nEarly data was not sent\n") == []
