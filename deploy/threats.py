"""The threat model of a site, with the verdicts of its last run."""

from __future__ import annotations

from deploy.inventory import reports
from gatehouse.proof import results, threat_report, threats
from gatehouse.site import Site


def threat_model(site: Site, form: str) -> str:
    """The threat model of every gateway. Raises `UnknownForm`, and `ResultsError` where the results can't be read."""
    path = reports(site) / site.name / results.LATEST / results.RESULTS
    run = results.read(path) if path.exists() else None
    return threat_report.shown(threats.models(site, run), form)
