"""Sabotages of what runs on the machine, of its packages and its log, and of who may try how often."""

from __future__ import annotations

from lab.sabotage.model import Sabotage

# On the operator's side: `$PYTHON` with the site's vault as `vault`.
_VAULT = """
"$PYTHON" - <<'END'
import os
from deploy import vaults
from deploy.inventory import ROOT
from gatehouse.site import load
vault = vaults.open_vault(load(os.environ["SITE"], ROOT))
NAME, FORMER = "broker/programs/homeassistant/password", "sabotage/former"
with vault.transaction():
{does}
END
"""

SABOTAGES = (
    Sabotage(
        name="program-of-nobody",
        title="A program runs that came with no package",
        breaks="""
            install -m 0755 /usr/bin/sleep /usr/local/bin/collectd
            systemd-run --quiet --collect --unit=stray-program.service /usr/local/bin/collectd 3600
        """,
        catches=("host.inventory",),
        ends="gone program; rm -f /usr/local/bin/collectd",
    ),
    Sabotage(
        name="changed-program",
        title="A program of a package was changed after it was installed",
        breaks="""
            cp -p /usr/bin/vmstat /run/sabotage.program
            printf x >>/usr/bin/vmstat
        """,
        catches=("host.packages",),
        ends="[ ! -e /run/sabotage.program ] || { cp -p /run/sabotage.program /usr/bin/vmstat; rm -f /run/sabotage.program; }",
    ),
    Sabotage(
        name="file-of-nobody",
        title="A program lies ready that came with no package and is of no declaration",
        breaks="""
            install -m 0755 /usr/bin/true /usr/local/sbin/logrotated
            systemctl start gatehouse-integrity.service
        """,
        catches=("host.integrity",),
        ends="rm -f /usr/local/sbin/logrotated",
    ),
    Sabotage(
        name="privileged-program",
        title="A program of a package runs as root, whoever starts it",
        breaks="""
            chmod u+s /usr/bin/vmstat
            systemctl start gatehouse-integrity.service
        """,
        catches=("host.integrity",),
        ends="chmod u-s /usr/bin/vmstat",
        apart_from=("changed-program",),
    ),
    Sabotage(
        name="nobody-looks",
        title="The timer of AIDE is disarmed",
        breaks="systemctl disable --quiet --now gatehouse-integrity.timer",
        catches=("host.integrity", "host.runs-integrity"),
    ),
    Sabotage(
        name="files-forgotten",
        title="AIDE's database is deleted",
        breaks="rm -f /var/lib/gatehouse-integrity/aide.db",
        catches=("host.integrity",),
    ),
    Sabotage(
        name="looks-away",
        title="AIDE is told to overlook where programs are put by hand",
        breaks="edit /etc/aide/aide.conf '/^.usr.local /d'",
        catches=("host.integrity",),
    ),
    Sabotage(
        name="package-from-nowhere",
        title="A package is installed that no archive vouches for",
        breaks="""
            mkdir -p /run/sabotage.package/DEBIAN
            printf '%s\\n' 'Package: free-gift' 'Version: 1' 'Architecture: all' 'Maintainer: nobody <nobody@invalid>' \\
                'Description: of no archive' >/run/sabotage.package/DEBIAN/control
            dpkg-deb --build /run/sabotage.package /run/sabotage.deb >/dev/null
            dpkg --install /run/sabotage.deb >/dev/null
            rm -rf /run/sabotage.package /run/sabotage.deb
        """,
        catches=("host.sources",),
        ends="dpkg --purge free-gift >/dev/null 2>&1 || true",
    ),
    Sabotage(
        name="memory-without-chance",
        title="A program runs whose memory is laid out the same each time",
        breaks="systemd-run --quiet --collect --unit=stray-plain.service setarch -R sleep 3600; sleep 0.5",
        catches=("host.memory",),
        ends="gone plain",
    ),
    Sabotage(
        name="service-without-limits",
        title="The broker may take all of the memory",
        breaks="""
            edit /etc/systemd/system/mosquitto.service.d/50-gatehouse.conf '/^(MemoryMax|TasksMax)/d'
            systemctl daemon-reload
        """,
        catches=("host.limits",),
    ),
    Sabotage(
        name="radio-on",
        title="Somebody has switched on Bluetooth",
        breaks="systemd-run --quiet --collect --unit=bluetooth.service sleep 3600",
        catches=("host.radios",),
        ends="systemctl stop bluetooth.service 2>/dev/null || true",
    ),
    Sabotage(
        name="sudo-for-all",
        title="Every account of the gateway may become root",
        breaks="""
            printf 'ALL ALL=(ALL:ALL) NOPASSWD: ALL\\n' >/etc/sudoers.d/90-everybody
            chmod 0440 /etc/sudoers.d/90-everybody
        """,
        catches=("host.sudo",),
        ends="rm -f /etc/sudoers.d/90-everybody",
    ),
    Sabotage(
        name="twin-account",
        title="An account is another one's by its number",
        breaks="useradd --no-log-init --no-create-home --non-unique --uid $(id -u games) --gid games twin",
        catches=("host.accounts",),
        ends="userdel --force twin 2>/dev/null || true",
    ),
    Sabotage(
        name="ssh-says-nothing",
        title="SSH notes nothing of who logs in and who is refused",
        breaks="sshd 's/^LogLevel .*/LogLevel QUIET/'",
        catches=("host.log-entries",),
    ),
    Sabotage(
        name="ssh-any-number-of-tries",
        title="SSH hears as many keys over one connection as anybody likes to show",
        breaks="sshd 's/^MaxAuthTries .*/MaxAuthTries 100/'",
        catches=("ssh.limits-attempts",),
    ),
    Sabotage(
        name="log-for-all",
        title="Everybody on the gateway can read the log",
        breaks="chmod -R o+rX /var/log/journal",
        catches=("host.log-protected",),
        ends="chmod -R o-rwx /var/log/journal; chmod o+rx /var/log/journal",
    ),
    Sabotage(
        name="secret-in-the-log",
        title="A service writes its password into a log of its own",
        breaks="""
            printf 'login of intake with password=%s\\n' "$(cat $DATABASE/intake.credential)" >/var/log/sabotage.log
            chmod 0600 /var/log/sabotage.log
        """,
        catches=("host.log-secrets",),
        ends="rm -f /var/log/sabotage.log",
    ),
    Sabotage(
        name="guessable-secret",
        title="A program's password is one that somebody has thought of",
        here=_VAULT.format(
            does='    kind = vault.about(NAME).kind\n    vault.rename(NAME, FORMER)\n    vault.set(NAME, "raspberry", kind)'
        ),
        ends_here=_VAULT.format(
            does="    if FORMER in vault:\n        vault.delete(NAME)\n        vault.rename(FORMER, NAME)"
        ),
        catches=("credentials.strong",),
    ),
)
