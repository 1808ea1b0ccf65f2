"""Security updates that install themselves."""

from gatehouse.site import Flow, Service

service = Service(
    name="upgrades",
    title="Automatic security updates",
    packages=("unattended-upgrades",),
    units=("apt-daily.timer", "apt-daily-upgrade.timer"),
    flows=(
        Flow(
            source="gateway",
            destination="internet",
            data="Debian packages",
            encryption="none",
            authentication="signatures of Debian's archive keys on the package lists",
            compromise="a mirror can withhold updates until the lists expire, not forge one",
            integrity="signatures of Debian's archive keys",
        ),
    ),
)
