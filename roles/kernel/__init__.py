"""The kernel's settings for a router, and the modules it does without."""

from __future__ import annotations

from collections.abc import Iterable

from gatehouse.site import Service

service = Service(name="kernel", title="Kernel settings", packages=("kmod", "procps"))

# What would put the gateway on the air. Where a segment has a wireless interface, those of Wi-Fi are left alone.
WIFI = ("hostapd.service", "iwd.service", "wpa_supplicant.service")
BLUETOOTH = ("bluetooth.service",)


def radios(interfaces: Iterable[str]) -> tuple[str, ...]:
    """The units that a gateway with these interfaces has no use for."""
    return BLUETOOTH if any(name.startswith("wl") for name in interfaces) else (*WIFI, *BLUETOOTH)


# Modules that are never loaded; what is left out on purpose stands in the template.
REFUSED = {
    "Transport protocols": ("dccp", "sctp", "rds", "tipc"),
    "Network protocols of the past": ("appletalk", "ax25", "decnet", "ipx", "netrom", "p8022", "psnap", "rose", "x25"),
    "Line disciplines": ("n_gsm", "n_hdlc"),
    "File systems of other machines": ("cramfs", "freevxfs", "hfs", "hfsplus", "jffs2"),
    "Direct memory access from outside": ("firewire-core", "firewire-ohci", "firewire-sbp2"),
}
# Where a gateway says `usb_storage=False`.
USB_STORAGE = {"Disks and sticks that are plugged in": ("uas", "usb-storage")}
