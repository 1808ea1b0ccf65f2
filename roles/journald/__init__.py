"""The journal: kept over restarts, limited in size, age and rate."""

from gatehouse.site import Service

service = Service(name="journald", title="Log (journal)", packages=("systemd",), units=("systemd-journald.service",))
