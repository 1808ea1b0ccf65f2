"""The boot loader (GRUB): a gateway starts by itself, and who stands before it changes nothing about how.

Who edits an entry of the menu or opens GRUB's shell is root on the gateway (`init=/bin/sh`): GRUB asks for the name
`gatehouse` and a password, which is in the vault. What Debian's own entries start needs none. The kernel is told from
its first moment on to watch for the audit system. Where a machine is started by something else, nothing is done.
"""

from gatehouse.identity import bootloader
from gatehouse.site import Secret, Service

service = Service(
    name="bootloader",
    title="Boot loader (GRUB)",
    packages=("python3-minimal",),
    secrets=(
        Secret(
            name="boot loader's password",
            kind="password",
            rotation_days=365,
            consumers=("bootloader",),
            kept=bootloader.PATTERN,
        ),
    ),
)

SUPERUSER = "gatehouse"
# kernel-parameters(7): processes are watched before auditd runs, and what they do meanwhile is kept for it.
ARGUMENTS = ("audit=1", "audit_backlog_limit=8192")
MENU = "/boot/grub/grub.cfg"
SCRIPT = "/etc/grub.d/01_gatehouse"
SETTINGS = "/etc/default/grub.d/99-gatehouse.cfg"
