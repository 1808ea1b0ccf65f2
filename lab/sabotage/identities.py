"""Sabotages of devices' identities: revocation, quarantine, certificates and keys, here and on the gateway."""

from __future__ import annotations

from lab.sabotage.model import Sabotage

_UNKNOWN = {"keys.known": "it is a key that the site does not know"}
_ENROLLED = {
    "identities.*": "as long as no device is enrolled there is nothing to prove",
    "api.devices": "the gateway has not been told of a device that is only in the registry",
}
# Where the broker is away or lets everybody in, nothing of this can be seen.
_BROKERS = ("impostor*", "no-broker", "anybody", "names-believed", "*-rights", "no-revocation", "broken-*")

# openssl-ca(1) signs lists: of what its index names, for as long as it is told.
_SIGN_LIST = """
    mkdir -p /run/sabotage-ca
    cat >/run/sabotage-ca/key
    printf '%s\\n' '[ca]' 'default_ca = c' '[c]' 'database = /run/sabotage-ca/index' 'default_md = sha256' \\
        'crlnumber = /run/sabotage-ca/number' 'crl_extensions = e' '[e]' 'authorityKeyIdentifier = keyid' \\
        >/run/sabotage-ca/conf
    printf 'FF\\n' >/run/sabotage-ca/number
    openssl ca -gencrl -config /run/sabotage-ca/conf -crldays 90 -out /run/sabotage-ca/crl \\
        -cert $CREDENTIALS/ca.crt -keyfile /run/sabotage-ca/key 2>/run/sabotage-ca/log || {
        cat /run/sabotage-ca/log >&2
        exit 1
    }
    cp -p $CREDENTIALS/crl.pem /run/sabotage-ca/current
    cat /run/sabotage-ca/crl >$CREDENTIALS/crl.pem
    systemctl reload mosquitto.service
    sleep 1
"""

# A certificate of the broker's as the services authority would issue it, in one respect other than the kit does.
_SERVER = """
    umask 077
    mkdir -p /run/sabotage-ca
    cat >/run/sabotage-ca/key
    awk '/BEGIN/ {{ n++ }} n == 2' $CREDENTIALS/server.crt >/run/sabotage-ca/issuer
    trap 'rm -rf /run/sabotage-ca' EXIT
    openssl x509 -x509toreq -in $CREDENTIALS/server.crt -signkey $CREDENTIALS/server.key -copy_extensions copyall \\
        -out /run/sabotage-ca/csr 2>/dev/null
    {key}
    openssl x509 -req -in /run/sabotage-ca/csr -CA /run/sabotage-ca/issuer -CAkey /run/sabotage-ca/key \\
        -copy_extensions copyall -set_serial 4711 {options} -out /run/sabotage-ca/crt
    cat /run/sabotage-ca/crt /run/sabotage-ca/issuer >$CREDENTIALS/server.crt
    systemctl restart mosquitto.service
"""

_WITH_THE_VAULT = "$PYTHON - $SITE "
_OLD_AUTHORITY = """
import datetime, sys
from deploy import vaults
from deploy.inventory import ROOT
from gatehouse.identity import Pki
from gatehouse.site import load

site = load(sys.argv[1], ROOT)
vault = vaults.open_vault(site)
long_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=3660)
prefixes = [p for n, net in site.gateways["gateway"].networks.items() if n != "internet" for p in net.prefixes]
Pki(vault, site.name, site.domain, prefixes, clock=lambda: long_ago).rollover("services").prepare()
"""
_NO_OLD_AUTHORITY = """
import sys
from deploy import vaults
from deploy.inventory import ROOT
from gatehouse.site import load

vault = vaults.open_vault(load(sys.argv[1], ROOT))
with vault.transaction():
    for name in list(vault.names("pki/services/coming/")):
        vault.delete(name)
"""

_LONG_UNCHANGED = """
import dataclasses, sys
from deploy import vaults
from deploy.inventory import ROOT
from gatehouse.site import load

vault = vaults.open_vault(load(sys.argv[1], ROOT))
with vault.transaction():
    entry = vault.about("influxdb.intake")
    vault.set("probe/age", entry.created, "record")
    vault._entries["influxdb.intake"] = dataclasses.replace(entry, created="2020-01-01T00:00:00Z")
"""
_YOUNG_AGAIN = """
import dataclasses, sys
from deploy import vaults
from deploy.inventory import ROOT
from gatehouse.site import load

vault = vaults.open_vault(load(sys.argv[1], ROOT))
with vault.transaction():
    if "probe/age" in vault:
        entry = vault.about("influxdb.intake")
        vault._entries["influxdb.intake"] = dataclasses.replace(entry, created=vault.get_text("probe/age"))
        vault.delete("probe/age")
"""

_GHOST = """
import socket, ssl, sys, time
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.load_cert_chain("/run/sabotage-ca/crt", "/run/sabotage-ca/ghost")
tls = context.wrap_socket(socket.create_connection((sys.argv[1], 8883)))
tls.sendall(bytes([0x10, 13, 0, 4, *b"MQTT", 5, 2, 1, 0, 0, 0, 0]))
assert tls.recv(4)[3] == 0
time.sleep(600)
"""


def _entry(name: str, serial: str, end: str) -> str:
    """Shell that writes a device into the registry, its certificate from yesterday until then; all have one key."""
    return f"""
        cat >>$REGISTRY <<X

[[device]]
name = "{name}"
model = "lab"
gateway = "$GATEWAY"
serials = ["{serial}"]
not_before = $(date -u -d yesterday +%FT00:00:00Z)
not_after = $(date -u -d '{end} 2 days ago' +%FT00:00:00Z)
spki_sha256 = "{"5a" * 32}"
X
"""


SABOTAGES = (
    Sabotage(
        name="empty-revocation-list",
        title="The broker has loaded a list of the right authority that names nobody",
        breaks=f"""
            umask 077
            mkdir -p /run/sabotage-ca
            trap 'rm -rf /run/sabotage-ca' EXIT
            : >/run/sabotage-ca/index
            {_SIGN_LIST}
        """,
        reads="pki/devices/key",
        catches=("broker.revocation-list", "broker.refuses-revoked"),
        apart_from=_BROKERS,
    ),
    Sabotage(
        name="served-for-ten-years",
        title="The broker's certificate lives for ten years",
        breaks=_SERVER.format(key="", options="-days 3650"),
        reads="pki/services/key",
        catches=("broker.pinned",),
        apart_from=_BROKERS,
    ),
    Sabotage(
        name="another-server-key",
        title="The broker has a good certificate for a key that no device has pinned",
        breaks=_SERVER.format(
            key="""
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out /run/sabotage-ca/new
    openssl pkey -in /run/sabotage-ca/new -pubout -out /run/sabotage-ca/public
    cat /run/sabotage-ca/new >$CREDENTIALS/server.key
""",
            options="-days 90 -force_pubkey /run/sabotage-ca/public",
        ),
        reads="pki/services/key",
        catches=("broker.pinned", "keys.known"),
        apart_from=_BROKERS,
    ),
    Sabotage(
        name="authority-in-disguise",
        title="Somebody left the key of the authority that makes devices' certificates in a file that is no PEM",
        breaks="(umask 077; openssl pkey -outform DER -out /var/lib/misc/backup.bin)",
        reads="pki/devices/key",
        catches=("keys.no-authority", "keys.known"),
        ends="rm -f /var/lib/misc/backup.bin",
    ),
    Sabotage(
        name="quarantine-emptied",
        title="The firewall's set of devices in quarantine was emptied",
        breaks="nft flush set inet gatehouse quarantined_hardware",
        catches=("quarantine.isolated", "quarantine.sets-of-quarantined"),
        apart_from=("no-firewall",),
    ),
    Sabotage(
        name="quarantine-without-rules",
        title="The firewall knows who is in quarantine, and no rule says what that means",
        breaks=r"""firewall '/hook forward/,/^\t\}/{ /@quarantined/d }'""",
        catches=("quarantine.isolated",),
        apart_from=("no-firewall", "forward-*"),
    ),
    Sabotage(
        name="quarantine-of-the-free",
        title="A device that nobody put in quarantine is cut off",
        breaks="nft add element inet gatehouse quarantined_4 '{ 10.99.99.99 }'",
        catches=("quarantine.sets-of-quarantined",),
        apart_from=("no-firewall",),
    ),
    Sabotage(
        name="revoked-forgotten",
        title="The firewall cuts off a device that is not revoked",
        breaks="nft add element inet gatehouse revoked_hardware '{ 02:00:00:00:00:99 }'",
        catches=("quarantine.sets-of-revoked",),
        apart_from=("no-firewall",),
    ),
    Sabotage(
        name="quarantine-heard",
        title="At the broker a device in quarantine may say and hear what others may",
        breaks="edit $CREDENTIALS/acl '/^topic deny/d'; systemctl reload mosquitto.service; sleep 1",
        catches=("quarantine.broker",),
        may={"programs.confined": "the rules that deny are those for programs, too"},
        apart_from=_BROKERS,
    ),
    Sabotage(
        name="shared-key",
        title="Two devices have the same key",
        here="".join(_entry(name, f"abc{name[-1]}", "next year") for name in ("twin-1", "twin-2")),
        catches=("identities.unique",),
        may=_ENROLLED,
    ),
    Sabotage(
        name="leaf-for-ten-years",
        title="A device has a certificate for ten years",
        here=f"""
            {_entry("old-01", "1267", "10 years")}
            umask 077
            mkdir -p $BUNDLES/old-01
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3652 -set_serial 0x1267 \\
                -subj /CN=old-01 -addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=clientAuth \\
                -addext subjectAltName=DNS:old-01.devices.$DOMAIN \\
                -keyout $BUNDLES/old-01/key.pem -out $BUNDLES/old-01/certificate.pem 2>/dev/null
        """,
        catches=("identities.valid", "identities.usage"),
        may=_ENROLLED,
        ends_here="rm -rf $BUNDLES/old-01",
    ),
    Sabotage(
        name="bundle-for-all",
        title="Everybody on the operator's machine can read a device's private key",
        here="""
            (umask 077; mkdir -p $BUNDLES/left-01)
            : >$BUNDLES/left-01/key.pem
            chmod 0644 $BUNDLES/left-01/key.pem
        """,
        catches=("identities.files",),
        ends_here="rm -rf $BUNDLES/left-01",
    ),
    Sabotage(
        name="authority-over",
        title="A certification authority's life is over",
        here=f"{_WITH_THE_VAULT}<<'X'\n{_OLD_AUTHORITY}X\n",
        catches=("identities.authorities",),
        ends_here=f"{_WITH_THE_VAULT}<<'X'\n{_NO_OLD_AUTHORITY}X\n",
    ),
    Sabotage(
        name="forgotten-rotation",
        title="A password was not replaced for years",
        here=f"{_WITH_THE_VAULT}<<'X'\n{_LONG_UNCHANGED}X\n",
        catches=("credentials.fresh",),
        ends_here=f"{_WITH_THE_VAULT}<<'X'\n{_YOUNG_AGAIN}X\n",
    ),
    # Whatever makes the broker read its files again undoes these, so they are the last.
    Sabotage(
        name="stale-revocation-list",
        title="The broker has loaded the list before the current one, while the current one lies in its place",
        breaks=f"""
            umask 077
            mkdir -p /run/sabotage-ca
            trap 'rm -rf /run/sabotage-ca' EXIT
            openssl crl -in $CREDENTIALS/crl.pem -noout -text | awk '/Serial Number:/ {{ print $3 }}' |
                grep -v "^$last_revoked\\$" |
                while read serial; do
                    printf 'R\\t350101000000Z\\t250101000000Z\\t%s\\tunknown\\t/CN=%s\\n' "$serial" "$serial"
                done >/run/sabotage-ca/index
            {_SIGN_LIST}
            cat /run/sabotage-ca/current >$CREDENTIALS/crl.pem
        """,
        reads="pki/devices/key",
        catches=("broker.revocation-list",),
        may={"broker.refuses-revoked": "where no device was revoked since, the last one is the suite's own"},
        apart_from=_BROKERS,
    ),
    Sabotage(
        name="revocation-list-not-read",
        title="A newer list lies on the gateway, and the broker was never told",
        breaks="printf '\\n' >>$CREDENTIALS/crl.pem",
        catches=("broker.revocation-list",),
        apart_from=_BROKERS,
    ),
    # Whatever starts the broker again ends the session, so it is the last of all.
    Sabotage(
        name="stranger-connected",
        title="Somebody who had the devices authority's key is connected as a device that nobody enrolled",
        breaks=f"""
            umask 077
            mkdir -p /run/sabotage-ca
            trap 'rm -f /run/sabotage-ca/key /run/sabotage-ca/ghost' EXIT
            cat >/run/sabotage-ca/key
            openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out /run/sabotage-ca/ghost
            openssl req -new -key /run/sabotage-ca/ghost -subj /CN=ghost-01 -out /run/sabotage-ca/csr
            printf 'extendedKeyUsage = clientAuth\\n' >/run/sabotage-ca/extensions
            openssl x509 -req -in /run/sabotage-ca/csr -days 1 -CA $CREDENTIALS/ca.crt -CAkey /run/sabotage-ca/key \\
                -set_serial 4712 -extfile /run/sabotage-ca/extensions -out /run/sabotage-ca/crt 2>/dev/null
            stray ghost '{_GHOST}' $gw4_iot
        """,
        reads="pki/devices/key",
        catches=("broker.sessions",),
        ends="gone ghost; rm -rf /run/sabotage-ca",
        apart_from=_BROKERS,
    ),
)
