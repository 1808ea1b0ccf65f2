"""What somebody can do who stands before the gateway when it starts."""

from __future__ import annotations

import pytest

from tests.compliance.bootloader import judged


@pytest.mark.controls("CIS-Debian-12-v1.1.0:1.4.1")
@pytest.mark.check("host.boot-loader")
def test_the_gateway_starts_by_itself_and_who_changes_how_is_asked_for_a_password(live, evidence, warn):
    """By GRUB's menu: entries are edited and its shell is opened with the vault's password alone, and what starts when
    nobody is there asks for none; the menu, which has the password's hash, is root's alone."""
    judged(live, evidence, warn)
