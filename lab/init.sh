#!/bin/sh
# First process of a lab gateway: undoes what makes a container unlike a machine, then becomes systemd.
set -eu

# Docker mounts its own files over these three; on a machine they belong to the machine.
for file in hostname hosts resolv.conf; do
    if mountpoint -q "/etc/$file"; then umount "/etc/$file"; fi
done

# The network's kernel settings are this machine's own (its network namespace). All others stay read-only: they are the host's.
mount --bind /proc/sys/net /proc/sys/net
mount -o remount,bind,rw /proc/sys/net

# A restart is this machine's reboot, so it gets a boot id of its own: the journal and those who wait for a reboot go by it.
cat /proc/sys/kernel/random/uuid >/run/lab-boot-id
mount --bind /run/lab-boot-id /proc/sys/kernel/random/boot_id

if [ -d /lab-first-boot ]; then
    cp -a /lab-first-boot/. /
    systemd-machine-id-setup >/dev/null
    ssh-keygen -q -A
    rm -rf /lab-first-boot
fi
exec /sbin/init
