"""SSH: how the gateway is administered, by one user who is not root, with keys, from the management segment."""

from gatehouse.site import Listener, Service

service = Service(
    name="ssh",
    title="Administration (SSH)",
    packages=("openssh-server", "sudo"),
    units=("ssh.service",),
    # Not confined as other services are: a shell inherits what binds its sshd, and this one administers the gateway.
    network_facing=False,
    listeners=(
        Listener(
            name="ssh",
            port=22,
            encryption="ssh",
            authentication="public key of the administrator",
            reachable_from=("management",),
            data="administration",
            compromise="whoever logs in here has the gateway",
        ),
    ),
)
