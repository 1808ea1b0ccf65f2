"""The model of a site, and the policy derived from it."""

from gatehouse.site.declaration import ClosedPort, Flow, Listener, Page, Secret, Service
from gatehouse.site.destinations import read as read_destinations
from gatehouse.site.loading import load
from gatehouse.site.loading import names as site_names
from gatehouse.site.model import (
    INTERNET,
    MANAGEMENT,
    Device,
    Gateway,
    LocalFile,
    LocalPackage,
    Network,
    Program,
    Repository,
    Segment,
    Site,
    seconds,
)
from gatehouse.site.policy import ForwardRule, InputRule, Policy, derive
from gatehouse.site.problems import Problem, SiteError
from gatehouse.site.registry import read as read_registry
from gatehouse.site.remote import read_peers

__all__ = [
    "INTERNET",
    "MANAGEMENT",
    "ClosedPort",
    "Device",
    "Flow",
    "ForwardRule",
    "Gateway",
    "InputRule",
    "Listener",
    "LocalFile",
    "LocalPackage",
    "Network",
    "Page",
    "Policy",
    "Problem",
    "Program",
    "Repository",
    "Secret",
    "Segment",
    "Service",
    "Site",
    "SiteError",
    "derive",
    "load",
    "read_destinations",
    "read_peers",
    "read_registry",
    "seconds",
    "site_names",
]
