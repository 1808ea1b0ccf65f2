"""What apt is told wherever the kit installs packages: on a gateway, on the operator's machine, in a lab."""

# Seconds: who else installs is waited for.
LOCK = "DPkg::Lock::Timeout=120"
