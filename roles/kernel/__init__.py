"""The kernel's settings for a router, and the modules it does without."""

from gatehouse.site import Service

service = Service(name="kernel", title="Kernel settings", packages=("kmod", "procps"))

# Modules that are never loaded; what is left out on purpose stands in the template.
REFUSED = {
    "Transport protocols": ("dccp", "sctp", "rds", "tipc"),
    "Network protocols of the past": ("appletalk", "ax25", "decnet", "ipx", "netrom", "p8022", "psnap", "rose", "x25"),
    "Line disciplines": ("n_gsm", "n_hdlc"),
    "File systems of other machines": ("cramfs", "freevxfs", "hfs", "hfsplus", "jffs2"),
    "Direct memory access from outside": ("firewire-core", "firewire-ohci", "firewire-sbp2"),
}
