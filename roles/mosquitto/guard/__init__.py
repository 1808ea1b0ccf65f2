"""Runs on the gateway, started by `mosquitto-guard`: Debian's Python and openssl, and nothing of the kit."""
