"""Sabotages of the database: who gets in, what each may do there, for how long it keeps what."""

from __future__ import annotations

from lab.sabotage.model import Sabotage

_EVERYWHERE = "{iot,management,guest,internal,internet}"
_NEED_IT = (
    "*database*",
    "default-password",
    "empty-password",
    "intake-*",
    "dashboards-write",
    "endless-retention",
    "rpc-*",
)
_SCANS = {
    "scan.{tcp,other-addresses}-from-*": "what answers is open to a scan, too",
    "gateway.other-addresses-from-*": "the rule names no destination address",
}

_NOTE = "note=${REGISTRY%/*}/backup-$GATEWAY.json"
_LONG_AGO = '{"made": "2020-02-29T03:00:00+00:00", "file": "/nowhere/old.data", "size": 1, "sha256": "00"}'

SABOTAGES = (
    Sabotage(
        name="no-database",
        title="The database is stopped",
        breaks="systemctl stop influxdb.service",
        catches=("host.runs-influxdb", "database.{intake-writes,dashboards-read}"),
        may={
            "database.*": "it answers nobody",
            "dashboards.{live-data,numbers}": "nor the dashboards",
            "intake.*": "what is verified waits for it",
            f"gateway.influxdb.*-from-{_EVERYWHERE}": "it answers nobody, so silence elsewhere proves nothing",
        },
        apart_from=_NEED_IT,
    ),
    Sabotage(
        name="database-without-login",
        title="The database asks nobody for a login",
        breaks="database 's/^( *auth-enabled) = true/\\1 = false/'",
        catches=(
            "database.asks-for-a-login",
            "database.refuses-wrong",
            "database.{intake-writes,dashboards-read}",
        ),
        may={"database.refuses-{default,empty}": "it takes any password"},
        apart_from=_NEED_IT,
    ),
    Sabotage(
        name="database-for-all",
        title="The database listens on every address, and the firewall lets everybody to it",
        breaks="""
            admit_to_database
            database 's/^( *bind-address) = "127.0.0.1:8086"/\\1 = ":8086"/'
            admit input 'fib daddr . iif type local tcp dport 8086 counter accept'
        """,
        catches=(f"gateway.influxdb.https-from-{_EVERYWHERE}",),
        may=_SCANS,
        apart_from=_NEED_IT,
    ),
    Sabotage(
        name="rpc-for-all",
        title="The database's RPC port is open on every address, and the firewall lets everybody to it",
        breaks="""
            admit_to_database
            database 's/^bind-address = "127.0.0.1:8088"/bind-address = ":8088"/'
            admit input 'fib daddr . iif type local tcp dport 8088 counter accept'
        """,
        catches=(f"gateway.influxdb.rpc-from-{_EVERYWHERE}",),
        may=_SCANS,
        apart_from=_NEED_IT,
    ),
    Sabotage(
        name="rpc-for-every-account",
        title="Every account of the gateway may connect to the database, and to its RPC port",
        breaks="firewall '/comment \"influxdb (https|rpc)\"/d'",
        catches=("database.other-accounts",),
    ),
    Sabotage(
        name="default-password",
        title="The database has an account with a password out of a tutorial",
        breaks='influxql "CREATE USER \\"admin\\" WITH PASSWORD \'admin\' WITH ALL PRIVILEGES"',
        catches=("database.refuses-default",),
        apart_from=("no-database", "database-without-login"),
    ),
    Sabotage(
        name="empty-password",
        title="The database has an account with an empty password",
        breaks='influxql "CREATE USER \\"root\\" WITH PASSWORD \'\'"',
        catches=("database.refuses-empty",),
        apart_from=("no-database", "database-without-login"),
    ),
    Sabotage(
        name="intake-administers",
        title="The intake's account was made an administrator",
        breaks='user=$(influxql_user intake) && influxql "GRANT ALL PRIVILEGES TO \\"$user\\""',
        catches=("database.intake-writes",),
        apart_from=("no-database", "database-without-login"),
    ),
    Sabotage(
        name="dashboards-write",
        title="The dashboards' account may write, too",
        breaks='user=$(influxql_user dashboards) && influxql "GRANT ALL ON \\"gatehouse\\" TO \\"$user\\""',
        catches=("database.dashboards-read",),
        apart_from=("no-database", "database-without-login"),
    ),
    Sabotage(
        name="endless-retention",
        title="The database keeps what devices reported for ever",
        breaks='influxql \'ALTER RETENTION POLICY "messages" ON "gatehouse" DURATION INF\'',
        catches=("database.retention",),
        apart_from=("no-database", "database-without-login"),
    ),
    Sabotage(
        name="database-files-for-all",
        title="Everybody on the gateway can read what the database stores, and its passwords",
        breaks="chmod 0755 /var/lib/influxdb; chmod 0644 $DATABASE/settings.json",
        catches=("database.files",),
    ),
    Sabotage(
        name="database-with-own-certificate",
        title="The database shows a certificate that it made itself",
        breaks="""
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=database \\
                -keyout $DATABASE/server.key -out $DATABASE/server.crt 2>/dev/null
            systemctl restart influxdb.service
            sleep 2
        """,
        catches=("database.tls", "database.{intake-writes,dashboards-read}", "keys.known"),
        may={
            "database.*": "whoever looks at its certificate turns away",
            "intake.*": "the intake does, too",
            "dashboards.{live-data,numbers}": "so do the dashboards, and who brings the numbers",
            "keys.owners": "the key was written anew",
        },
        apart_from=(*_NEED_IT, "impostor-with-own-certificate", "unknown-key", "authority-on-the-gateway"),
    ),
    Sabotage(
        name="forgotten-backups",
        title="Nobody has made a backup of the database for years",
        here=f"{_NOTE}; if [ -e $note ]; then mv $note $note.kept; else : >$note.none; fi; echo '{_LONG_AGO}' >$note",
        ends_here=f"{_NOTE}; [ ! -e $note.none ] || rm $note.none $note; [ ! -e $note.kept ] || mv $note.kept $note",
        catches=("database.backup",),
    ),
)
