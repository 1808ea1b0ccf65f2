"""The kernel's audit rules: declared and listed alike they are the same, and they are loaded only where that can be."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from pyinfra.api import StringCommand

from roles.auditd import operations
from roles.auditd.deploy import rules
from roles.auditd.facts import Audits, Loaded
from roles.auditd.rules import Rules, declared, listed
from roles.differences import HEARD
from roles.rendering import File

FILE = File(
    "/etc/audit/rules.d/x.rules",
    b"# why\n-D\n-b 8192\n--backlog_wait_time 0\n-f 1\n\n-w /etc/ssh -p wa -k ssh\n"
    b"-a always,exit -F arch=b64 -S mount,umount2 -F auid>=1000 -F auid!=unset -F key=mounts\n"
    b"-a always,exit -F dir=/etc -F perm=wa -F key=system\n-a always,exclude -F msgtype=BPF\n-e 2\n",
)
# As auditctl 3.0.9 prints it.
LISTED = """enabled 2
failure 1
pid 342
rate_limit 0
backlog_limit 8192
lost 0
backlog 0
backlog_wait_time 0
backlog_wait_time_actual 0
loginuid_immutable 0 unlocked
-w /etc/ssh/ -p wa -k ssh
-a always,exit -F arch=b64 -S umount2,mount -F auid>=1000 -F auid!=-1 -F key=mounts
-a always,exit -S all -F dir=/etc -F perm=wa -F key=system
-a always,exclude -F msgtype=BPF
""".splitlines()


def found(*changes: tuple[str, str]) -> Rules:
    """What is listed, with some text in another's place."""
    text = "\n".join(LISTED)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return listed(text.splitlines())


def lacks(*changes: tuple[str, str]) -> list[str]:
    return found(*changes).lacks(declared(FILE.content.decode()))


def test_what_is_listed_is_what_was_declared():
    assert Loaded().process(LISTED) == found()
    assert lacks() == []
    assert found().locked and not found(("enabled 2", "enabled 1")).locked


def test_a_rule_that_is_missing_other_more_or_elsewhere_is_told():
    line = "-w /etc/ssh/ -p wa -k ssh\n"
    assert lacks((line, "")) == ["not loaded: always,exit key=ssh perm=aw watch=/etc/ssh"]
    assert lacks((line, f"-a never,task\n{line}")) == ["not declared: never,task"]
    foreign = "-a always,exit -S all -F path=/a file -C uid!=euid"
    assert lacks((line, f"{line}{foreign}\n"))[0].startswith("not declared: always,exit ")
    assert lacks(("auid>=1000", "auid>=1001"))[0].startswith(
        "not loaded: always,exit mount umount2 arch=b64 auid!=unset"
    )
    assert lacks((line, ""), ("-a always,exclude", f"{line}-a always,exclude")) == ["loaded in another order"]


def test_a_setting_that_is_other_is_told():
    assert lacks(("enabled 2", "enabled 1"), ("failure 1", "failure 2")) == [
        "failure is 2, not 1",
        "enabled is 1, not 2",
    ]
    assert "enabled is None, not 2" in Rules().lacks(declared(FILE.content.decode()))


def commands(monkeypatch: pytest.MonkeyPatch, loaded: Rules, told: dict[str, Any] | None = None) -> list[str]:
    """The commands of the operation on a host whose kernel has these rules."""

    class Host:
        connector_data = told or {}
        print_prefix = "[gw] "

        def get_fact(self, *_: Any, **__: Any) -> Rules:
            return loaded

    monkeypatch.setattr(operations, "host", Host())
    return [str(command) for command in operations.locked(FILE)]


def test_rules_are_loaded_where_they_differ_and_nothing_is_locked(monkeypatch, caplog):
    told: dict[str, Any] = {HEARD: []}
    assert commands(monkeypatch, found()) == []
    (command,) = commands(monkeypatch, found(("enabled 2", "enabled 1")), told)
    assert command.startswith("augenrules --load") and "enabled 2" in command
    assert told[HEARD] == [("audit", "rules of the kernel", "enabled is 1, not 2")]
    assert not caplog.records


def test_where_others_are_locked_it_says_from_when_on_the_new_ones_hold_and_plans_nothing(monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    other = found(("perm=wa -F key=system", "perm=w -F key=system"))
    assert commands(monkeypatch, other) == []
    (record,) = caplog.records
    assert "hold from the gateway's next start on" in record.message


def test_the_kit_s_rules_neither_stop_the_kernel_nor_wait_and_are_locked_last():
    lines = rules().content.decode().splitlines()
    settings = declared("\n".join(lines)).settings
    assert settings == {"backlog_limit": "8192", "backlog_wait_time": "0", "failure": "1", "enabled": "2"}
    assert lines[-1] == "-e 2"


def test_each_rule_has_a_key_and_none_is_there_twice():
    wanted = declared(rules().content.decode()).rules
    assert len(set(wanted)) == len(wanted)
    assert [rule for rule in wanted if "key=" not in rule] == [rule for rule in wanted if "exclude" in rule]
    # What a 64-bit program may not do unseen, a 32-bit one may not either.
    assert {r.replace("arch=b64", "arch=b32") for r in wanted if "b64" in r} == {r for r in wanted if "b32" in r}


@pytest.mark.parametrize(("own", "does"), [(True, ["run it"]), (False, ["only enable it"])])
def test_what_takes_a_kernel_of_its_own_is_done_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, own: bool, does: list[str]
) -> None:
    class Host:
        def get_fact(self, _: Any) -> bool:
            return Audits().process(["audits"] if own else [])

    def step() -> list[StringCommand]:
        return [StringCommand("run it")]

    monkeypatch.setattr(operations, "host", Host())
    otherwise = operations.audited._inner(step, lambda: [StringCommand("only enable it")])
    assert [str(command) for command in otherwise] == does
    assert [str(command) for command in operations.audited._inner(step)] == (does if own else [])
