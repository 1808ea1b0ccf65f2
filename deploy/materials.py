"""The bill of materials of a site's gateway: asked over SSH, nothing there is changed."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from deploy.data import one_gateway
from deploy.remote import connected
from gatehouse.proof import sbom
from gatehouse.site import Site


def bill(site: Site, gateway: str) -> str:
    """CycloneDX as JSON. Raises `DataError`, `RemoteError`, `SbomError`."""
    gateway = one_gateway(site, gateway)
    with connected(site, gateway) as remote:
        said = remote.run(sbom.QUESTION)
    try:
        found = sbom.answer(said)
    except sbom.SbomError as error:
        raise sbom.SbomError(f"{gateway}: {error}") from None
    return json.dumps(sbom.cyclonedx(site.name, gateway, found, datetime.now(UTC)), indent=1)
