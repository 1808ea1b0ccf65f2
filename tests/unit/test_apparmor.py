"""Each unit that AppArmor confines says so, and each profile is of a unit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from roles import declared
from roles.apparmor import CONFINED, profile

TEMPLATES = Path(__file__).parents[2] / "templates"


def test_what_is_confined_is_what_declares_that_unit():
    units = {service.name: service.units for service in declared()}
    assert all(unit in units[name] for name, unit in CONFINED.items())


@pytest.mark.parametrize("name", CONFINED)
def test_the_unit_of_a_profile_runs_by_it_and_no_other_template_speaks_of_one(name):
    files = [path for path in TEMPLATES.joinpath(name).rglob("*") if path.is_file()]
    told = [line for path in files for line in re.findall(r"^AppArmorProfile=.*$", path.read_text(), re.MULTILINE)]
    assert told == ["AppArmorProfile=-{{ profile }}"]
    (made,) = (path for path in TEMPLATES.rglob(f"{profile(name)}.j2"))
    assert "profile {{ profile }} " in made.read_text()


def test_no_other_unit_speaks_of_a_profile():
    told = {
        path.relative_to(TEMPLATES).parts[0]
        for path in TEMPLATES.rglob("*.j2")
        if "AppArmorProfile" in path.read_text()
    }
    assert told == CONFINED.keys()
