"""The floor of a deploy that changes nothing: imports pyinfra, and hashes the same files with one SSH command.

`python -m benchmarks.floor ADDRESS PORT USER KEY KNOWN_HOSTS FILE…` prints how many files it found.
"""

from __future__ import annotations

import shlex
import socket
import sys

import pyinfra  # noqa: F401  a part of what is measured
from paramiko import RejectPolicy, SSHClient


def main(address: str, port: str, user: str, key: str, known_hosts: str, *paths: str) -> int:
    """Exit status 0 if every file was found."""
    client = SSHClient()
    client.set_missing_host_key_policy(RejectPolicy())
    client.load_host_keys(known_hosts)
    client.connect(address, int(port), user, key_filename=key, look_for_keys=False, allow_agent=False)
    client.get_transport().sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sudo = "" if user == "root" else "sudo -n "
    _, output, _ = client.exec_command(f"{sudo}sha256sum -- {shlex.join(paths)}")
    found = len(output.readlines())
    client.close()
    print(f"{found} of {len(paths)} files")
    return 0 if found == len(paths) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
