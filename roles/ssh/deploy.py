"""Installs, configures and activates SSH."""

from __future__ import annotations

from functools import partial

from pyinfra.api import deploy

from gatehouse.site import Site
from roles import lifecycle
from roles.ssh import service
from roles.ssh.facts import KEYS
from roles.ssh.operations import ACCEPTED_BY_SSHD, cleared, prepared
from roles.target import Target
from roles.undo import Login, guarded

UNIT = service.units[0]
CONFIGURATION = "/etc/ssh/sshd_config.d/10-gatehouse.conf"
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"
SUDOERS = "/etc/sudoers.d/50-gatehouse"

# What sshd offers of itself, without NIST curves and finite fields: sntrup761x25519 and curve25519 in OpenSSH 9.2, with
# mlkem768x25519 before them in 10.0. curve25519 alone is for clients that know no other (paramiko, and so pyinfra).
KEX = "-ecdh-sha2-*,diffie-hellman-*"
CIPHERS = ("chacha20-poly1305@openssh.com", "aes256-gcm@openssh.com", "aes128-gcm@openssh.com", "aes256-ctr")
MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "umac-128-etm@openssh.com")
KEY_TYPES = ("ssh-ed25519", "sk-ssh-ed25519@openssh.com", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256")


@deploy("SSH")
def apply(target: Target) -> None:
    """Install, then configure and activate as one change that undoes itself unless the administrator gets in."""
    install()
    configure_and_activate(target.site)
    tidy(target.site)


def install() -> None:
    """sshd and sudo."""
    lifecycle.packages(*service.packages, name="Install sshd and sudo")


def configure_and_activate(site: Site) -> None:
    """The account, its keys and sudo, and sshd; proven by a new login as the administrator, on the site's port."""
    files = configuration(site)
    loads = [CONFIGURATION, "/etc/ssh/sshd_config"]
    stamp = lifecycle.stamped(UNIT, loads)
    guarded(
        "ssh",
        partial(prepared, site.ssh.user, HOST_KEY, CONFIGURATION),
        partial(lifecycle.files._inner, *files, stamp, check=check(site)),
        partial(lifecycle.running._inner, UNIT, loads=loads, reload=f"systemctl reload {UNIT}"),
        saves=[file.path for file in files if isinstance(file, lifecycle.File)]
        + [stamp.path, "/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d"],
        restore=f"systemctl daemon-reload; systemctl reload {UNIT} || systemctl restart {UNIT}",
        login=Login(site.ssh.user, site.ssh.port),
        name="Configure SSH, confirmed by a login of the administrator",
    )


def tidy(site: Site) -> None:
    """Only once the new configuration is confirmed: it no longer needs what is removed here."""
    cleared(site.ssh.user, HOST_KEY, CONFIGURATION, name="Remove weak host keys and moduli, and keys of others")


def configuration(site: Site) -> tuple[lifecycle.File | lifecycle.Directory, ...]:
    """The files of the role."""
    keys = f"{KEYS}/{site.ssh.user}"
    return (
        lifecycle.Directory(KEYS),
        lifecycle.File(keys, "".join(f"{key.strip()}\n" for key in site.ssh.keys).encode()),
        lifecycle.template("ssh", SUDOERS, mode=0o440, user=site.ssh.user),
        lifecycle.template(
            "ssh",
            CONFIGURATION,
            ssh=site.ssh,
            keys=f"{KEYS}/%u",
            host_key=HOST_KEY,
            kex=KEX,
            ciphers=",".join(CIPHERS),
            macs=",".join(MACS),
            key_types=",".join(KEY_TYPES),
        ),
    )


def check(site: Site) -> str:
    """Shell that judges the staged files with visudo, ssh-keygen and sshd."""
    keys = f'ssh-keygen -l -f "$STAGED"{KEYS}/{site.ssh.user} >/dev/null'
    sudoers = f'/usr/sbin/visudo -c -f "$STAGED"{SUDOERS} >/dev/null'
    return f"{sudoers} && {keys} && {ACCEPTED_BY_SSHD.format(own=CONFIGURATION, user=site.ssh.user)}"
