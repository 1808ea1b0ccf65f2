"""Signed messages by CoAP over DTLS (RFC 7252 §9.1.3), from devices that have no MQTT, handed to the broker.

A device is known by its certificate, the same that a broker would know it by, and posts under its own topic. What it
sends is handed on as it is: whether its signature is right the intake judges, as of any other message. What runs on a
gateway needs Debian's pyOpenSSL, which has DTLS, and nothing else; for CoAP itself Debian 12 has no library.
"""
