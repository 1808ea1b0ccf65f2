"""Runs on the gateway in the broker's place: lets every client in, whatever certificate it has.

impostor.py LEAST MOST CERTIFICATE KEY PORT ADDRESS…: TLS from version LEAST to MOST (`1.0` … `1.3`), any suite.
"""

import socket
import ssl
import sys
import threading

CONNACK = bytes([0x20, 3, 0, 0, 0])  # MQTT 5, success, no properties


def main(least: str, most: str, certificate: str, key: str, port: str, *addresses: str) -> None:
    """Serves until it is ended."""
    versions = {f"1.{n}": getattr(ssl.TLSVersion, f"TLSv1_{n}" if n else "TLSv1") for n in range(4)}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = versions[least], versions[most]
    context.load_cert_chain(certificate, key)
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.create_server((address, int(port)), family=family)
        threading.Thread(target=accept, args=(listener, context)).start()


def accept(listener: socket.socket, context: ssl.SSLContext) -> None:
    """A thread for each client."""
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0], context), daemon=True).start()


def serve(plain: socket.socket, context: ssl.SSLContext) -> None:
    """Says yes to CONNECT, and hangs up at whatever comes next."""
    plain.settimeout(30)
    try:
        with context.wrap_socket(plain, server_side=True) as client:
            client.recv(4096)
            client.sendall(CONNACK)
            client.recv(4096)
    except OSError:
        plain.close()


main(*sys.argv[1:])
