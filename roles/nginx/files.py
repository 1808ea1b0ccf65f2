"""What the HTTPS front's role puts on a gateway."""

from __future__ import annotations

import json
from pathlib import Path

from gatehouse.site import INTERNET
from gatehouse.site.pages import OWN, Host, hosts
from roles import rendering
from roles.apparmor import profile
from roles.nftables import service as nftables
from roles.nginx import USER, service
from roles.target import Target
from roles.updates import files as updates

UNIT = service.units[0]
FOLDER = "/etc/gatehouse/web"
CONFIGURATION = f"{FOLDER}/nginx.conf"
USUAL = "/etc/nginx/nginx.conf"
"""Where nginx looks when it is told nothing."""
NAMES, ENABLED, CERTIFICATES = f"{FOLDER}/names", f"{FOLDER}/enabled", f"{FOLDER}/certificates"
SERVED = f"{FOLDER}/served.json"
AUTHORITY = f"{FOLDER}/ca.crt"
SANDBOX = f"/etc/systemd/system/{UNIT}.d/50-gatehouse.conf"
PAGE = "/usr/share/gatehouse/web/gateway.html"
PROVE = "/usr/lib/gatehouse/web-prove"
RELOADS = "/usr/lib/gatehouse/web-reload"
CHALLENGES = "/var/lib/gatehouse-acme"
"""Where the public CA finds its challenges (RFC 8555 §8.3), below `.well-known/acme-challenge`."""
# Public names go with it when their certificates are there: what is staged is tried with those of the gateway. nginx is
# told where each file is, and so tries a copy that names the staged ones.
CHECK = (
    f'for one in {ENABLED}/*.conf; do name=$(basename "$one" .conf); from="$STAGED"{NAMES}/"$name".conf;'
    f' if [ -e "$from" ]; then mkdir -p "$STAGED"{ENABLED} "$STAGED"{CERTIFICATES};'
    f' cp -RLT {CERTIFICATES}/"$name" "$STAGED"{CERTIFICATES}/"$name"; cp "$from" "$STAGED"{ENABLED}/; fi; done;'
    f' cp -RT "$STAGED"{FOLDER} "$STAGED"/tried;'
    f' find "$STAGED"/tried -name "*.conf" -exec sed -i "s|{FOLDER}/|$STAGED/tried/|g" {{}} +;'
    f' nginx -t -q -e stderr -c "$STAGED"/tried/nginx.conf -g "user {USER}; pid $STAGED/nginx.pid;"'
)
# Mozilla's recommendations, version 5.7 (https://ssl-config.mozilla.org); without the suites that need DH parameters.
SUITES = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)


def addresses(target: Target, listener: str) -> list[str]:
    """Where it listens: at the addresses of the segments that may reach it, at any where one is the provider's."""
    networks, reach = target.gateway.networks, target.site.listener(service.name, listener).reachable_from
    if INTERNET in reach and INTERNET in networks and not networks[INTERNET].addresses:
        return ["*", "[::]"]
    found = target.listens_on(service.name, listener) or ["127.0.0.1"]
    return [f"[{address}]" if ":" in address else address for address in found]


def folder(page: Host) -> str:
    """Where the chain and the key of a name are."""
    return f"{CERTIFICATES}/{page.name}"


def server_name(page: Host, gateway: str) -> str:
    """What the site's PKI calls the server of a name."""
    return f"web-{page.label}-{gateway}"[:64]


def certificate_files(target: Target) -> list[rendering.File]:
    """The site's own names: certificates of its PKI, which know nothing of the others."""
    found = []
    for page in hosts(target.site, target.name):
        if not page.public:
            server = target.pki.server(server_name(page, target.name), [page.name])
            chain, key = f"{folder(page)}/chain.pem", f"{folder(page)}/key.pem"
            found += [
                rendering.File(chain, server.chain_pem),
                rendering.File(key, server.private_key_pem, group=USER, mode=0o640),
            ]
    return found


def loads(target: Target) -> tuple[str, ...]:
    """What the unit notes when it reads it. Certificates of the public CA are no deploy's business."""
    pages = hosts(target.site, target.name)
    own = [f"{folder(page)}/{name}.pem" for page in pages if not page.public for name in ("chain", "key")]
    more = updates.LOADS if updates.on(target) else ()
    return (CONFIGURATION, *(f"{NAMES}/{page.name}.conf" for page in pages), *own, AUTHORITY, PAGE, SANDBOX, *more)


def configuration(target: Target) -> list[rendering.File | rendering.Directory]:
    """Everything but the certificates."""
    site = target.site
    pages = hosts(site, target.name)
    https, http = (site.listener(service.name, name) for name in ("https", "http"))
    shared = {"folder": FOLDER, "web": site.web, "https": https, "http": http, "suites": SUITES, "own": OWN}
    at = {name: addresses(target, name) for name in ("https", "http")}
    names = [
        rendering.template(
            "nginx",
            f"{FOLDER}/name.conf",
            to=f"{NAMES}/{page.name}.conf",
            page=page,
            at=at,
            authority=AUTHORITY,
            domain=site.domain,
            static=PAGE,
            **shared,
        )
        for page in pages
    ]
    challenges = [page.name for page in pages if page.public] if site.acme and not site.acme.dns else []
    return [
        *(rendering.Directory(path) for path in (FOLDER, NAMES, ENABLED, CERTIFICATES)),
        *(rendering.Directory(folder(page)) for page in pages if not page.public),
        rendering.Directory(CHALLENGES),
        rendering.template(
            "nginx",
            CONFIGURATION,
            pages=pages,
            at=at,
            challenges=challenges,
            root=CHALLENGES,
            updates=updates.on(target),
            **shared,
        ),
        rendering.template("nginx", USUAL, configuration=CONFIGURATION),
        *names,
        *(updates.front(target) if updates.on(target) else ()),
        rendering.File(AUTHORITY, target.pki.trust_anchor),
        rendering.template("nginx", PAGE, pages=pages, gateway=target.name, site=site, own=OWN),
        rendering.template(
            "nginx",
            SANDBOX,
            configuration=CONFIGURATION,
            user=USER,
            firewall=nftables.units[0],
            reloads=RELOADS,
            profile=profile(service.name),
        ),
        rendering.File(RELOADS, Path(__file__).with_name("reload.sh").read_bytes(), mode=0o755),
        rendering.File(PROVE, Path(__file__).with_name("prove.py").read_bytes(), mode=0o755),
        served(target, pages),
        rendering.stamped(UNIT, loads(target)),
    ]


def served(target: Target, pages: tuple[Host, ...]) -> rendering.File:
    """Where each name is served, and which certificate must be seen there; for `prove`."""
    address = addresses(target, "https")[0].strip("[]").replace("*", "127.0.0.1")
    content = {
        "address": address,
        "port": target.site.listener(service.name, "https").port,
        "enabled": ENABLED,
        "names": {page.name: {"chain": f"{folder(page)}/chain.pem", "public": page.public} for page in pages},
    }
    return rendering.File(SERVED, (json.dumps(content, indent=1) + "\n").encode())
