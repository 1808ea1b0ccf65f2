"""Passwords of programs: generated, told apart, replaced; and what is said where there is no such program."""

from __future__ import annotations

from gatehouse.identity import SecretStore, programs


def test_each_program_has_a_password_of_its_own_that_stays() -> None:
    vault = SecretStore()
    first, other = programs.password_of(vault, "homeassistant"), programs.password_of(vault, "nodered")
    assert first != other and min(len(first), len(other)) >= 22
    assert programs.password_of(vault, "homeassistant") == first


def test_a_new_password_comes_with_a_new_salt_and_touches_no_other() -> None:
    vault = SecretStore()
    before = programs.password_file(vault, ["homeassistant", "nodered"]).splitlines()
    vault.set(programs.secret_name("homeassistant"), "another")
    programs.forget_salt(vault, "homeassistant")
    after = programs.password_file(vault, ["homeassistant", "nodered"]).splitlines()
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True, True]
    assert before[0].split(b"$")[3] != after[0].split(b"$")[3]
