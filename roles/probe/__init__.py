"""What the compliance suite runs on the gateway itself: from a position in every segment, without extra hardware."""

from gatehouse.site import Service

service = Service(name="probe", title="Probes", packages=("iproute2", "nmap", "openssl", "python3"))
