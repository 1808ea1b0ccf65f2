"""The boot loader's password and menu, without GRUB: tests/roles has GRUB itself judge."""

from __future__ import annotations

import pytest

from gatehouse.identity import SecretStore, bootloader
from roles.bootloader.menu import entries, started

MENU = """
set default="{default}"
if [ x"${{feature_menuentry_id}}" = xy ]; then
  menuentry_id_option="--id"
fi
function savedefault {{
  save_env saved_entry
}}
set menuentry_id_option="--unrestricted $menuentry_id_option"
menuentry 'Debian' --class os $menuentry_id_option 'gnulinux-simple' {{
	linux	/vmlinuz root=/dev/vda1 ro
	initrd	/initrd.img
}}
submenu 'Advanced options' --users root --id 'gnulinux-advanced' {{
	menuentry 'Somebody'\\''s {{own}}' $menuentry_id_option 'gnulinux-own' {{
		linux16 /other root=/dev/vda1
	}}
}}
menuentry "Off" --unrestricted {{ halt }}
"""


def test_a_password_has_the_same_hash_at_each_deploy_until_it_is_replaced() -> None:
    vault = SecretStore()
    made = bootloader.password_hash(vault, "gw1")
    assert made.startswith("grub.pbkdf2.sha512.10000.") and len(made.split(".")[-1]) == 128
    assert bootloader.password_hash(vault, "gw1") == made
    assert bootloader.opens(bootloader.password_of(vault, "gw1"), made)
    assert not bootloader.opens(bootloader.password_of(vault, "gw2"), made)
    bootloader.forget_salt(vault, "gw1")
    assert bootloader.password_hash(vault, "gw1") != made


@pytest.mark.parametrize("hashed", ["", "x", "grub.pbkdf2.sha512.10.AB", "grub.pbkdf2.sha512.-1.AB.CD", "a.b.1.AB.CD"])
def test_what_is_no_hash_of_grub_s_opens_nothing(hashed: str) -> None:
    assert not bootloader.opens("", hashed)


def test_an_entry_is_as_free_as_the_menu_that_it_is_in() -> None:
    found = entries(MENU.format(default="0"))
    assert [(entry.title, entry.id, entry.depth, entry.free) for entry in found] == [
        ("Debian", "gnulinux-simple", 0, True),
        ("Advanced options", "gnulinux-advanced", 0, False),
        ("Somebody's {own}", "gnulinux-own", 1, False),
        ("Off", "", 0, True),
    ]
    assert [entry.kernels for entry in found] == [["/vmlinuz root=/dev/vda1 ro"], [], ["/other root=/dev/vda1"], []]


@pytest.mark.parametrize(
    ("default", "titles"),
    [
        ("0", ["Debian"]),
        ("2", ["Off"]),
        ("Off", ["Off"]),
        ("gnulinux-simple", ["Debian"]),
        ("${saved_entry}", ["Debian", "Advanced options", "Somebody's {own}"]),
        ("gnulinux-advanced>gnulinux-own", ["Debian", "Advanced options", "Somebody's {own}"]),
    ],
)
def test_what_is_started_is_told_by_number_title_or_id_and_is_else_any_of_debian_s(
    default: str, titles: list[str]
) -> None:
    assert [entry.title for entry in started(MENU.format(default=default))] == titles
