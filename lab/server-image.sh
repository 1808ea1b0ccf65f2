#!/bin/sh
# Makes a fresh Debian server of a minimal root file system; runs while the image is built. Arguments: its packages.
set -eu
cd /lab-build

# Official container images forbid services to start and drop documentation: a server does neither.
rm -f /usr/sbin/policy-rc.d /etc/apt/apt.conf.d/docker-* /etc/dpkg/dpkg.cfg.d/docker* /etc/apt/sources.list.d/debian.sources
install -m 0644 sources.list /etc/apt/sources.list
if [ -s 99lab-host.conf ]; then install -m 0644 99lab-host.conf /etc/apt/apt.conf.d/99lab-host; fi
for certificate in certificates/*.crt; do
    if [ -e "$certificate" ]; then install -D -m 0644 -t /usr/local/share/ca-certificates "$certificate"; fi
done

if ! dpkg -s "$@" >/dev/null 2>&1; then
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends "$@"
fi
update-ca-certificates >/dev/null
systemctl enable systemd-networkd.service ssh.service >/dev/null 2>&1

# Each machine makes its own at its first boot.
rm -f /etc/ssh/ssh_host_* /etc/machine-id /var/lib/dbus/machine-id
apt-get clean
rm -rf /var/lib/apt/lists/* /lab-build
