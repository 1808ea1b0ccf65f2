"""Certificates of a public CA (ACME, RFC 8555) for the gateway's public names; only where the site has `acme`.

Each is renewed after a fraction of its life, whatever that is. A certificate counts when its consumer shows it: it is
installed with its key in one step, for the consumer alone to read, the consumer reads it, and what it shows then is
compared with what is on the disk; where that fails, the former one comes back. The same is done after the first issue.
"""

from gatehouse.site import Flow, Service

service = Service(
    name="certbot",
    title="Certificates of a public CA",
    packages=("certbot", "python3-certbot-dns-rfc2136", "python3-cryptography", "openssl", "ca-certificates"),
    units=("certbot.timer",),
    only_with="acme",
    flows=(
        Flow(
            source="gateway",
            destination="public CA",
            data="the names that certificates are for, an address for notices; all of it becomes public",
            encryption="tls",
            authentication="the CA by its certificate, the gateway by its ACME account's key",
            compromise="who has the account's key can revoke the certificates; who has a challenge can get one",
        ),
    ),
)
