"""The lab built of virtual machines: a gateway with real kernel, VLANs and reboots, and one machine that is the field.

The field machine holds every other host as a network namespace, behind the same trunk. No interface of the operator's
machine is touched: the wires are Unix sockets between the two QEMU processes.
"""
