"""Sabotages of SSH, accounts, keys, and the confinement of services."""

from __future__ import annotations

from lab.sabotage.model import Sabotage

# These have the broker read its files again, after those here.
_BROKER_AGAIN = ("*-revocation-list", "quarantine-heard", "served-for-ten-years", "another-server-key")

SABOTAGES = (
    Sabotage(
        name="ssh-passwords",
        title="SSH asks for passwords",
        breaks="""
            sshd 's/^(PasswordAuthentication|KbdInteractiveAuthentication) no/\\1 yes/'
            sshd 's/^(AuthenticationMethods) .*/\\1 any/'
        """,
        catches=("ssh.keys-only",),
        may={"ssh.no-root": "root is offered a password as well"},
    ),
    Sabotage(
        name="ssh-any-key",
        title="SSH lets the administrator in without any proof",
        breaks="""
            user=$(sed -n 's/^AllowUsers //p' /etc/ssh/sshd_config.d/10-gatehouse.conf)
            passwd --quiet --delete "$user"
            sshd 's/^(PasswordAuthentication|PermitEmptyPasswords) no/\\1 yes/; s/^(AuthenticationMethods).*/\\1 any/'
        """,
        catches=("ssh.keys-only", "host.accounts"),
        may={
            "ssh.no-root": "root is offered a password as well",
            "host.log-entries": "who shows no key is noted without one",
        },
    ),
    Sabotage(
        name="ssh-default-password",
        title="An account with the password that its maker gave it may log in by SSH",
        breaks="""
            id pi >/dev/null 2>&1 || useradd --create-home --shell /bin/sh pi
            usermod --password "$(openssl passwd -6 raspberry)" pi
            sshd 's/^AllowUsers .*/& pi/'
            sshd '$a Match User pi\\nPasswordAuthentication yes\\nAuthenticationMethods password'
        """,
        ends="userdel --force --remove pi 2>/dev/null || true",
        catches=("ssh.refuses-default",),
        may={"host.accounts": "an account with a password"},
        apart_from=("ssh-passwords", "ssh-any-key"),
    ),
    Sabotage(
        name="ssh-root",
        title="root may log in with the administrator's key",
        breaks="""
            sshd 's/^PermitRootLogin no/PermitRootLogin yes/; s/^AllowUsers .*/& root/'
            cp -p /etc/ssh/authorized_keys.d/* /etc/ssh/authorized_keys.d/root
        """,
        catches=("ssh.no-root",),
    ),
    Sabotage(
        name="ssh-old-ciphers",
        title="SSH offers a cipher in CBC mode",
        breaks="sshd 's/^Ciphers .*/&,aes128-cbc/'",
        catches=("ssh.algorithms",),
    ),
    Sabotage(
        name="ssh-old-macs",
        title="SSH offers SHA-1",
        breaks="sshd 's/^MACs .*/&,hmac-sha1/'",
        catches=("ssh.algorithms",),
    ),
    Sabotage(
        name="ssh-forwarding",
        title="SSH forwards connections past the firewall",
        breaks="sshd 's/^(DisableForwarding) yes/\\1 no/; s/^(AllowTcpForwarding) no/\\1 yes/'",
        catches=("ssh.no-forwarding",),
    ),
    Sabotage(
        name="ssh-forgotten",
        title="SSH is not part of the start",
        breaks="systemctl disable --quiet ssh.service",
        catches=("host.runs-ssh",),
    ),
    Sabotage(
        name="ssh-no-notice",
        title="SSH tells nobody that what is done is logged",
        breaks="sshd 's/^Banner .*/Banner none/'",
        catches=("ssh.notice",),
    ),
    Sabotage(
        name="weak-passwords",
        title="Any password will do",
        breaks="DEBIAN_FRONTEND=noninteractive pam-auth-update --disable passwdqc",
        catches=("host.passwords",),
    ),
    Sabotage(
        name="endless-guesses",
        title="Passwords may be guessed without end",
        breaks="""
            DEBIAN_FRONTEND=noninteractive pam-auth-update --disable gatehouse-faillock gatehouse-faillock-first
        """,
        catches=("host.guesses",),
    ),
    Sabotage(
        name="same-old-password",
        title="A former password may come back",
        breaks="DEBIAN_FRONTEND=noninteractive pam-auth-update --disable gatehouse-pwhistory",
        catches=("host.former-passwords",),
    ),
    Sabotage(
        name="ageless-accounts",
        title="New accounts keep their password for ever",
        breaks="edit /etc/login.defs 's/^(PASS_MAX_DAYS).*/\\1 99999/'",
        catches=("host.new-accounts",),
    ),
    Sabotage(
        name="open-logins",
        title="What a person makes is for everybody to read",
        breaks="edit /etc/profile.d/gatehouse.sh 's/^umask .*/umask 022/'",
        catches=("host.login-shell",),
    ),
    Sabotage(
        name="core-dumps",
        title="What crashes leaves its memory on the disk",
        breaks="""
            rm /etc/security/limits.d/50-gatehouse.conf /etc/systemd/system.conf.d/50-gatehouse.conf
            systemctl daemon-reload
        """,
        catches=("host.core-dumps",),
    ),
    Sabotage(
        name="modules-for-all",
        title="The kernel loads protocols that nobody needs",
        breaks="edit /etc/modprobe.d/gatehouse.conf '/^install (dccp|sctp|rds|tipc) /d'",
        catches=("host.modules",),
    ),
    Sabotage(
        name="usb-for-all",
        title="The kernel takes every disk that somebody plugs in",
        breaks="edit /etc/modprobe.d/gatehouse.conf '/^install (uas|usb-storage) /d'",
        catches=("host.usb-storage",),
    ),
    Sabotage(
        name="jobs-of-everybody",
        title="Everybody can write what root runs every day",
        breaks="chmod 0777 /etc/cron.daily",
        catches=("host.file-modes",),
    ),
    Sabotage(
        name="key-for-all",
        title="Everybody on the gateway can read the broker's private key",
        breaks="chmod 0644 $CREDENTIALS/server.key",
        catches=("keys.owners",),
    ),
    Sabotage(
        name="key-of-another",
        title="The broker's private key belongs to a user who has no business with it",
        breaks="chown games:games $CREDENTIALS/server.key",
        catches=("keys.owners",),
        apart_from=_BROKER_AGAIN,
    ),
    Sabotage(
        name="authority-on-the-gateway",
        title="Somebody left the key of the authority that makes devices' certificates on the gateway",
        breaks="(umask 077; cat >/root/ca.key)",
        reads="pki/devices/key",
        catches=("keys.no-authority", "keys.known"),
        ends="rm -f /root/ca.key",
    ),
    Sabotage(
        name="firmware-key-on-the-gateway",
        title="Somebody left the key that firmware is signed with on the gateway",
        breaks="(umask 077; cat >/root/signing.pem)",
        reads="firmware/keys/1/key",
        catches=("keys.no-authority", "keys.known"),
        ends="rm -f /root/signing.pem",
    ),
    Sabotage(
        name="unknown-key",
        title="A private key lies on the gateway that the site knows nothing of",
        breaks="(umask 077; openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out /root/old.key)",
        catches=("keys.known",),
        ends="rm -f /root/old.key",
    ),
    Sabotage(
        name="no-confinement",
        title="The units' confinement is gone: services run with what Debian gives them",
        breaks="""
            rm -f /etc/systemd/system/mosquitto.service.d/50-gatehouse.conf
            rm -f /etc/systemd/system/chrony.service.d/50-gatehouse.conf
            edit /etc/systemd/system/influxdb.service.d/50-gatehouse.conf '/^(Protect|Private|Restrict|System|IPAdd)/d'
            edit /etc/systemd/system/grafana-server.service.d/50-gatehouse.conf '/^(Protect|Private|Restrict|System|IPAdd)/d'
            edit /etc/systemd/system/gatehouse-intake.service '/^(Protect|Private|Restrict|System|IPAdd|Capab|NoNew)/d'
            edit /etc/systemd/system/gatehouse-coap.service '/^(Protect|Private|Restrict|System|IPAdd|Capab|NoNew)/d'
            edit /etc/systemd/system/gatehouse-api.service '/^(Protect|Private|Restrict|System|IPAdd|Capab|NoNew)/d'
            edit /etc/systemd/system/nginx.service.d/50-gatehouse.conf '/^(Protect|Private|Restrict|System|NoNew|Capab)/d'
            edit /etc/systemd/system/gatehouse-tunnel.service '/^(Protect|Private|Restrict|System|NoNew|Capab|Device)/d'
            edit /etc/systemd/system/dnsmasq.service '/^(Protect|Private|Restrict|Capability|System|NoNew|User)/d'
            edit /etc/systemd/system/gatehouse-alerts.service '/^(Protect|Private|Restrict|System|IPAdd|Capab|NoNew)/d'
            edit /etc/systemd/system/gatehouse-verify.service '/^(Protect|Private|Restrict|System|IPAdd|Capab|NoNew)/d'
            edit /etc/systemd/system/gatehouse-integrity.service '/^(Protect|Private|Restrict|System|IPAdd|Capab|NoNew)/d'
            systemctl daemon-reload
        """,
        catches=(
            "host.confines-{mosquitto,chrony,dnsmasq,influxdb,intake,coap,grafana,nginx,api,wireguard}",
            "{watch,alerts,integrity}.confined",
        ),
        may={
            "dashboards.tells-nobody": "nothing keeps the dashboards from talking to others",
            "host.limits": "the limits of some go with it",
        },
        apart_from=(
            *_BROKER_AGAIN,
            "lists-without-names",
            "no-advertisement",
            "handed-out-wrongly",
            "own-name-everywhere",
        ),
    ),
)
