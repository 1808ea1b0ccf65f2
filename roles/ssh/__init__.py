"""SSH: how the gateway is administered, by one user who is not root, with keys, from the management segment."""

from gatehouse.site import Listener, Service

service = Service(
    name="ssh",
    title="Administration (SSH)",
    packages=("openssh-server", "sudo"),
    units=("ssh.service",),
    network_facing=True,
    unconfined="a shell inherits the confinement of its sshd, and this shell administers the gateway",
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
