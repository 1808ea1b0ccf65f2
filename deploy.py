"""What `pyinfra INVENTORY deploy.py` runs: the layers of a gateway, in order."""

from deploy import foundation, messaging, network, telemetry, web
from deploy.session import begin

target = begin()
foundation.apply(target)
network.apply(target)
messaging.apply(target)
telemetry.apply(target)
web.apply(target)
