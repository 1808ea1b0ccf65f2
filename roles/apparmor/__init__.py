"""AppArmor: what the programs that face a network may touch, held by the kernel beside systemd's sandboxes.

A profile is named `gatehouse-SERVICE`, and the unit that is confined by it says so (`AppArmorProfile=`): the same
program started by hand, as the checks of new configurations do, is not. Debian's own profiles (chrony's, for one) are
loaded, too. Containers share the profiles of the machine underneath: there this role loads nothing.
"""

from gatehouse.site import Service

service = Service(name="apparmor", title="Confinement (AppArmor)", packages=("apparmor",))

UNIT = "apparmor.service"
FOLDER = "/etc/apparmor.d"
# The services that have a profile of the kit's, with their unit.
CONFINED = {"dnsmasq": "dnsmasq.service", "mosquitto": "mosquitto.service", "nginx": "nginx.service"}


def profile(name: str) -> str:
    """The name of a service's profile, which is that of its file, too."""
    return f"gatehouse-{name}"
