"""Who works with the kit here: what locks, incidents and gateways' logs name."""

import getpass
import socket


def whoami() -> str:
    """The user and the machine that this runs on."""
    return f"{getpass.getuser()} on {socket.gethostname()}"
