"""Sabotages of the HTTPS front, and of its certificates."""

from __future__ import annotations

from lab.sabotage.model import Sabotage

_ELSEWHERE = "{iot,guest,internal,internet}"
_NO_DEVICES = "{management,guest,internal,internet}"
_SILENT = "it answers nobody, so silence elsewhere proves nothing"
_BEHIND = {"dashboards.*": "the dashboards are behind it", "api.*": "the device API is behind it"}

SABOTAGES = (
    Sabotage(
        name="no-front",
        title="The HTTPS front is stopped",
        breaks="systemctl stop nginx.service",
        catches=(
            "host.runs-nginx",
            "gateway.nginx.https-from-management",
            "gateway.nginx.http-from-{management,internet}",
            "gateway.updates.updates-from-iot",
        ),
        may={
            f"gateway.updates.updates-from-{_NO_DEVICES}": _SILENT,
            f"gateway.nginx.https-from-{_ELSEWHERE}": _SILENT,
            "gateway.nginx.http-from-{iot,guest,internal}": _SILENT,
            "scan.tcp-from-{iot,management,internet}": "a declared port is closed",
            "web.*": "it answers nobody",
            "keys.known": "nobody shows the certificate that a key is known by",
            "updates.*": "the update server is a part of it",
            "tls.*": "how it shakes hands can't be seen",
            "remote.reaches-management": "it is what a peer reaches there, too",
            **_BEHIND,
        },
        apart_from=("front-*", "*hook*", "*challenge*", "key-for-root-alone"),
    ),
    Sabotage(
        name="front-for-all",
        title="The HTTPS front and the update server listen on every address, and the firewall lets everybody to it",
        breaks=r"""
            for file in nginx.conf updates/updates.conf $(cd $WEB && ls names/*.conf); do
                edit $WEB/$file 's/listen [0-9.]+:/listen *:/; s/listen \[[0-9a-f:]+\]:/listen [::]:/'
                awk '/server [{]/ { split("", seen) } !(/listen / && seen[$0]++)' $WEB/$file >/run/sabotage.front
                cat /run/sabotage.front >$WEB/$file
            done
            systemctl restart nginx.service
            admit input 'fib daddr . iif type local tcp dport { 80, 443, 8444 } counter accept'
        """,
        catches=(
            f"gateway.nginx.https-from-{_ELSEWHERE}",
            "gateway.nginx.http-from-{iot,guest,internal}",
            f"gateway.updates.updates-from-{_NO_DEVICES}",
        ),
        may={
            "scan.{tcp,other-addresses}-from-*": "what answers is open to a scan, too",
            "gateway.other-addresses-from-*": "the rule names no destination address",
        },
        apart_from=("no-front",),
    ),
    Sabotage(
        name="front-with-old-tls",
        title="The HTTPS front speaks TLS 1.0 and 1.1, and suites without authenticated encryption",
        breaks=r"""
            front nginx.conf 's/ssl_protocols .*/ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3;/;
                s/ssl_ciphers .*/ssl_ciphers "ALL:@SECLEVEL=0";/'
        """,
        catches=("web.tls", "tls.weak-suites"),
        apart_from=("no-front", "front-with-rsa", "front-without-gcm"),
    ),
    Sabotage(
        name="front-with-rsa",
        title="The HTTPS front has a second certificate, RSA signed with SHA-1, and takes it for static key exchange",
        breaks=r"""
            folder=/usr/share/gatehouse/web/rsa
            mkdir -p $folder
            openssl req -x509 -newkey rsa:2048 -sha1 -nodes -days 1 -subj /CN=rsa                 -keyout $folder/key.pem -out $folder/chain.pem 2>/dev/null
            chmod 0644 $folder/key.pem
            for file in $(cd $WEB && ls names/*.conf); do
                edit $WEB/$file "s|^( *)ssl_certificate_key .*|&\n\1ssl_certificate $folder/chain.pem;\n\1ssl_certificate_key $folder/key.pem;|"
            done
            front nginx.conf 's/ssl_ciphers (.*);/ssl_ciphers \1:AES128-GCM-SHA256;/'
        """,
        catches=("tls.static-keys", "tls.certificates"),
        ends="rm -rf /usr/share/gatehouse/web/rsa",
        apart_from=("no-front", "front-with-own-certificate", "front-with-old-tls", "front-without-gcm", "*hook*"),
    ),
    Sabotage(
        name="front-without-gcm",
        title="Of TLS 1.2 the HTTPS front has left out the suites that are recommended",
        breaks="front nginx.conf 's/ssl_ciphers .*/ssl_ciphers ECDHE-ECDSA-CHACHA20-POLY1305;/'",
        catches=("tls.recommended-suites",),
        apart_from=("no-front",),
    ),
    Sabotage(
        name="front-with-other-curves",
        title="The HTTPS front agrees on keys over one curve only, which few clients have",
        breaks="front nginx.conf 's/ssl_ecdh_curve .*/ssl_ecdh_curve secp521r1;/'",
        catches=("tls.curves",),
        apart_from=("no-front",),
    ),
    Sabotage(
        name="front-with-loose-sessions",
        title="The HTTPS front's sessions are not bound to their handshake",
        breaks=r"front nginx.conf 's/ssl_session_tickets .*/&\n    ssl_conf_command Options -ExtendedMasterSecret;/'",
        catches=("tls.bound-sessions",),
        apart_from=("no-front",),
    ),
    Sabotage(
        name="front-with-early-data",
        title="The HTTPS front takes what comes with a client's first message",
        breaks=r"front nginx.conf 's/ssl_session_tickets .*/&\n    ssl_early_data on;/'",
        catches=("tls.early-data",),
        apart_from=("no-front",),
    ),
    Sabotage(
        name="front-with-tickets",
        title="The HTTPS front gives tickets whose key it keeps for as long as it runs",
        breaks="front nginx.conf 's/ssl_session_tickets off/ssl_session_tickets on/'",
        catches=("tls.tickets-of-front",),
        apart_from=("no-front",),
    ),
    Sabotage(
        name="front-without-hsts",
        title="Browsers are not told to insist on HTTPS",
        breaks="for file in $(cd $WEB && ls names/*.conf); do front $file '/Strict-Transport-Security \"/d'; done",
        catches=("web.headers",),
        apart_from=("no-front", "front-*"),
    ),
    Sabotage(
        name="front-tells-its-version",
        title="The HTTPS front tells everybody its version",
        breaks="front nginx.conf 's/server_tokens off/server_tokens on/'",
        catches=("web.headers",),
        apart_from=("no-front", "front-*"),
    ),
    Sabotage(
        name="front-for-guessers",
        title="The HTTPS front lets everybody try as many logins as they like",
        breaks="for file in $(cd $WEB && grep -l limit_req names/*.conf); do front $file '/limit_req /d'; done",
        catches=("web.limits-logins",),
        apart_from=("no-front", "front-with-own-certificate"),
    ),
    Sabotage(
        name="front-compresses",
        title="The HTTPS front compresses what it answers",
        breaks="front nginx.conf 's/gzip off;/gzip on; gzip_min_length 1;/'",
        catches=("web.headers",),
        apart_from=("no-front", "front-*"),
    ),
    Sabotage(
        name="front-in-the-clear",
        title="The HTTPS front answers without HTTPS",
        breaks="front nginx.conf 's/return 301 .*/return 200 here;/'",
        catches=("web.redirect",),
        apart_from=("no-front",),
    ),
    Sabotage(
        name="front-for-any-name",
        title="The HTTPS front shows a certificate to whoever asks for any name",
        breaks=r"""
            folder=$(ls -d $WEB/certificates/*/ | head -1)
            front nginx.conf "s|ssl_reject_handshake on;|ssl_certificate ${folder}chain.pem; ssl_certificate_key ${folder}key.pem;|"
        """,
        catches=("web.unknown-names",),
        apart_from=("no-front",),
    ),
    Sabotage(
        name="front-with-own-certificate",
        title="The HTTPS front shows a certificate that it made itself for a public name",
        breaks="""
            for folder in $WEB/certificates/*.example; do
                openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=front \\
                    -keyout $folder/key.pem -out $folder/chain.pem 2>/dev/null
            done
            systemctl restart nginx.service
        """,
        catches=("web.certificate",),
        may={
            "web.{served,renewal,tls,headers,limits-logins}": "it is not what certbot has, and visitors turn away",
            "keys.known": "certbot's own key is no longer in use",
            "api.*": "whoever looks at its certificate turns away",
        },
        apart_from=("no-front", "front-*", "*hook*", "unknown-key", "authority-on-the-gateway", "key-for-root-alone"),
    ),
    Sabotage(
        name="no-hook",
        title="Nobody installs the certificate that was renewed: the deploy hook is gone",
        breaks="""
            rm -f /etc/letsencrypt/renewal-hooks/deploy/gatehouse
            REQUESTS_CA_BUNDLE=/etc/gatehouse/certbot/trust.pem \\
                certbot renew --quiet --force-renewal --no-random-sleep-on-renew
        """,
        catches=("web.served", "web.renewal"),
        may={"keys.known": "the key of what nobody shows is not known"},
        apart_from=(
            "no-front",
            "front-with-own-certificate",
            "unknown-key",
            "authority-on-the-gateway",
            "no-challenge",
            "no-names",
        ),
    ),
    Sabotage(
        name="key-for-root-alone",
        title="The renewed key was installed for root alone: the front can't read it at its next start",
        breaks="chmod 0600 $WEB/certificates/*/key.pem",
        catches=("web.served",),
        may={"web.renewal": "what is installed is not as it has to be"},
        # whatever starts nginx again finds the key so
        apart_from=("no-front", "no-hook", "front-*", "updates-*"),
    ),
    Sabotage(
        name="no-challenge",
        title="The public CA no longer gets to the gateway's port 80",
        breaks=r"""firewall '/chain in_internet/,/^\t\}/{ /comment "nginx http"/d }'""",
        catches=("gateway.nginx.http-from-internet", "web.renewal"),
        may={
            "scan.tcp-from-internet": "a declared port is closed",
            "gateway.connections": "the suite's own rehearsal of a renewal waits for the CA meanwhile",
        },
        apart_from=("no-hook", "front-for-all"),
    ),
    Sabotage(
        name="no-renewal",
        title="The timer that renews certificates is disarmed",
        breaks="systemctl disable --quiet --now certbot.timer",
        catches=("host.runs-certbot", "web.renewal"),
    ),
    Sabotage(
        name="no-device-api",
        title="The device API is stopped",
        breaks="systemctl stop gatehouse-api.service",
        catches=("host.runs-api", "api.devices"),
        may={
            "api.{refuses,read-only,other-accounts}": "it answers nobody",
            "gateway.api.http-from-*": _SILENT,
        },
        apart_from=("no-front", "device-api-*"),
    ),
    Sabotage(
        name="device-api-for-every-account",
        title="Every account of the gateway may connect to the device API's plain port",
        breaks="firewall '/comment \"api http\"/d'",
        catches=("api.other-accounts",),
        apart_from=("no-device-api",),
    ),
    Sabotage(
        name="device-api-without-tokens",
        title="The device API asks nobody for a token",
        breaks="""
            edit $API/server.py 's/who = of_request.*/who = "anybody"/'
            systemctl restart gatehouse-api.service
        """,
        catches=("api.refuses",),
        apart_from=("no-front", "no-device-api", "device-api-*"),
    ),
    Sabotage(
        name="device-api-for-writing",
        title="The device API takes requests that would change something",
        breaks="""
            edit $API/server.py 's/do_POST = do_PUT/do_POST = do_GET; do_PUT/'
            systemctl restart gatehouse-api.service
        """,
        catches=("api.read-only",),
        apart_from=("no-front", "no-device-api", "device-api-*"),
    ),
    Sabotage(
        name="device-api-for-all",
        title="The device API listens on every address, and the firewall lets everybody to it",
        breaks="""
            edit /etc/systemd/system/gatehouse-api.service '/^IPAddress/d'
            edit /etc/gatehouse/api/settings.json 's/127\\.0\\.0\\.1/0.0.0.0/'
            systemctl daemon-reload
            systemctl restart gatehouse-api.service
            sleep 1
            admit input 'fib daddr . iif type local tcp dport 8110 counter accept'
        """,
        catches=("gateway.api.http-from-*",),
        may={
            "scan.{tcp,other-addresses}-from-*": "what answers is open to a scan, too",
            "gateway.other-addresses-from-*": "the rule names no destination address",
        },
        apart_from=("no-front", "no-device-api", "device-api-*", "no-confinement"),
    ),
)
