# What the sabotages have at hand. In front of it stand, for each segment, its bridge ($br_iot), the gateway's addresses
# there ($gw4_iot, $gw6_iot) and those of the lab's own host there ($host4_iot, $host6_iot), and $operator4.
set -eu
FIREWALL=/etc/gatehouse/firewall.nft
BROKER=/etc/mosquitto/conf.d/gatehouse.conf
CREDENTIALS=/etc/mosquitto/gatehouse
MESSAGES=/usr/lib/gatehouse/python/gatehouse/messages
COAP=/usr/lib/gatehouse/python/gatehouse/coap
DATABASE=/etc/gatehouse/database
WEB=/etc/gatehouse/web
API=/usr/lib/gatehouse/python/gatehouse/api
FIRMWARE=/var/lib/gatehouse-updates/served
DASHBOARDS=/etc/gatehouse/grafana
ALERTS=/var/lib/gatehouse-alerts

# edit FILE EXPRESSION: sed -E in place; an edit that changes nothing is no sabotage.
edit() {
    cp -p "$1" /run/sabotage.before
    sed -E -i -e "$2" "$1"
    ! cmp -s "$1" /run/sabotage.before || { echo "nothing to change in $1" >&2; exit 1; }
    rm -f /run/sabotage.before
}

# firewall EXPRESSION: edits the ruleset and loads it, as its unit does.
firewall() {
    edit $FIREWALL "$1"
    /usr/lib/gatehouse/firewall
}

# admit CHAIN RULE: puts a rule in front of all others.
admit() { firewall "/hook $1 /a $2"; }

# broker EXPRESSION: edits the broker's configuration and starts it on that.
broker() {
    edit $BROKER "$1"
    systemctl restart mosquitto.service
}

# database EXPRESSION: edits the database's configuration and starts it on that; returns when it answers.
database() {
    edit $DATABASE/influxdb.conf "$1"
    systemctl restart influxdb.service
    timeout 30 sh -c 'until ss -H -t -l -n "sport = :8086" | grep -q .; do sleep 0.2; done'
}

# admit_to_database: lets the unit itself take packets from elsewhere than loopback.
admit_to_database() {
    edit /etc/systemd/system/influxdb.service.d/50-gatehouse.conf '/^IPAddress/d'
    systemctl daemon-reload
}

# influxql QUERY: asks the database as its administrator.
influxql() {
    python3 -B -c 'import sys; sys.path.insert(0, "/usr/lib/gatehouse/database")
from common import Settings
import one
one.Engine(Settings.read()).ask(sys.argv[1])' "$1"
}

# influxql_user ACCOUNT: the database's user that an account has now; each rotation makes another.
influxql_user() {
    python3 -B -c 'import sys; sys.path.insert(0, "/usr/lib/gatehouse/database")
from common import Settings
print(Settings.read().logins(sys.argv[1])[0][0])' "$1"
}

# influxql_numbers QUERY: the same, of the database with the gateway's own numbers.
influxql_numbers() {
    python3 -B -c 'import sys, dataclasses; sys.path.insert(0, "/usr/lib/gatehouse/database")
from common import Settings
import one
found = Settings.read()
one.Engine(dataclasses.replace(found, database=found.numbers)).ask(sys.argv[1])' "$1"
}

# grafana EXPRESSION: edits the dashboards' settings and starts them on that; returns when they answer.
grafana() {
    edit $DASHBOARDS/grafana.ini "$1"
    systemctl restart grafana-server.service
    timeout 50 python3 -I /usr/lib/gatehouse/dashboards awake
}

# grafana_source EXPRESSION: the same with what they know of the database.
grafana_source() {
    edit $DASHBOARDS/provisioning/datasources/gatehouse.yaml "$1"
    systemctl restart grafana-server.service
    timeout 50 python3 -I /usr/lib/gatehouse/dashboards awake
}

# grafana_account NAME PASSWORD: makes an account, as their administrator.
grafana_account() {
    python3 -I - "$@" <<'END'
import http.client, json, sys
password = open("/etc/gatehouse/grafana/admin_password").read().strip()
def ask(path, content, cookie=""):
    asking = http.client.HTTPConnection("127.0.0.1", 3000, timeout=30)
    headers = {"Content-Type": "application/json", "Cookie": cookie}
    asking.request("POST", path, json.dumps(content), headers)
    answer = asking.getresponse()
    return answer.status, (answer.headers.get("Set-Cookie") or "").partition(";")[0]
_, cookie = ask("/login", {"user": "gatehouse-admin", "password": password})
status, _ = ask("/api/admin/users", {"name": sys.argv[1], "login": sys.argv[1], "password": sys.argv[2]}, cookie)
sys.exit(status != 200)
END
}

# intake FILE EXPRESSION: edits a file of the intake's, its settings or its program, and starts it on that.
intake() {
    edit "$1" "$2"
    systemctl restart gatehouse-intake.service
}

# coap FILE EXPRESSION: edits a file of the CoAP endpoint's, a part of its program or another, and starts it on that.
coap() {
    case $1 in /*) edit "$1" "$2" ;; *) edit "$COAP/$1" "$2" ;; esac
    systemctl restart gatehouse-coap.service
    timeout 20 sh -c "until grep -qs '^gatehouse_coap_connected 1' /run/gatehouse-coap/metrics.prom; do sleep 0.2; done"
}

# front FILE EXPRESSION: edits a file of the HTTPS front's, which it then reads.
front() {
    edit $WEB/$1 "$2"
    systemctl restart nginx.service
}

# updates FILE EXPRESSION: edits a file of the update server's, which it then reads.
updates() { front updates/$1 "$2"; }

# sshd FILE-EXPRESSION: edits what sshd reads, and makes it read that.
sshd() {
    edit /etc/ssh/sshd_config.d/10-gatehouse.conf "$1"
    systemctl reload ssh.service
}

# rights LINE: adds a line to the broker's access rules, which it reads again.
rights() {
    printf '%s\n' "$1" >>$CREDENTIALS/acl
    systemctl reload mosquitto.service
}

# stray NAME CODE [ARGUMENT…]: leaves a Python program running that no deploy knows of; `gone NAME` ends it.
stray() {
    unit=stray-$1.service
    shift
    systemd-run --quiet --collect --unit="$unit" python3 -c "$@"
    sleep 1
    systemctl is-active --quiet "$unit"
}
gone() { systemctl stop "stray-$1.service" 2>/dev/null || true; }
