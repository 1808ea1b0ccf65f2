"""What the other roles stand on: Debian itself, and the kit's own small tools on the gateway."""

from gatehouse.site import Service

service = Service(name="base", title="Debian and the kit's tools", packages=("python3-minimal", "sudo"))
