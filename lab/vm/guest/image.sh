#!/bin/sh
# Makes a lab machine's disk of a fresh Debian server; runs while the image is built, in /lab-build.
set -eu

printf '/dev/vda / ext4 defaults 0 1\n' >/etc/fstab
# Empty, not missing: the machine makes its own at its first boot, and keeps its units as they are.
: >/etc/machine-id
install -m 0755 first-boot.sh /usr/local/sbin/lab-first-boot

cat >/etc/systemd/system/lab-first-boot.service <<'UNIT'
[Unit]
Description=First boot of a lab machine
DefaultDependencies=no
ConditionPathExists=!/var/lib/lab-first-boot
After=systemd-remount-fs.service
Before=systemd-udevd.service systemd-udev-trigger.service systemd-networkd.service sysinit.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/lab-first-boot

[Install]
WantedBy=sysinit.target
UNIT

# What a keyboard and a screen are to a machine in a cupboard: it works whatever became of network and SSH.
cat >/etc/systemd/system/lab-console.service <<'UNIT'
[Unit]
Description=Console of a lab machine
DefaultDependencies=no
After=lab-first-boot.service
Conflicts=shutdown.target
Before=shutdown.target

[Service]
ExecStart=/usr/bin/python3 -I /usr/local/sbin/lab-console
Restart=always
RestartSec=1
KillMode=process
OOMScoreAdjust=-900

[Install]
WantedBy=sysinit.target
UNIT
systemctl enable lab-first-boot.service lab-console.service >/dev/null 2>&1
# The field machine's clock server runs in the provider's namespace only.
if [ -e /lib/systemd/system/chrony.service ]; then systemctl mask chrony.service >/dev/null 2>&1; fi
