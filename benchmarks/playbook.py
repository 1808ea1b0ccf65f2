"""The same states in Ansible: a playbook as one writes it by hand, and ansible-core in an environment of its own."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, BenchmarkError
from benchmarks.states import State
from deploy import environments

ENVIRONMENT = ROOT / ".venv-ansible"


def environment(log: Callable[[str], None]) -> Path:
    """The folder with `ansible-playbook`, installed as the lock file says if it is not there. Raises BenchmarkError."""
    try:
        return environments.environment("ansible", log)
    except environments.EnvironmentRefused as error:
        raise BenchmarkError(str(error)) from None


def tasks(states: Sequence[State], files: str = "files") -> list[dict[str, Any]]:
    """One task a package set, file, unit, account; contents are copied from `files/NUMBER`.

    The settings of the running kernel are read by one task for all: ansible-core has no module for them, and a task for
    each would only make Ansible slower.
    """
    made = [_task(state, f"{files}/{number}") for number, state in enumerate(states) if state["kind"] != "setting"]
    if keys := [state["key"].removeprefix("-") for state in states if state["kind"] == "setting"]:
        paths = " ".join(f"/proc/sys/{key.replace('.', '/')}" for key in keys)
        read = {"ansible.builtin.shell": f"head -v {paths} 2>/dev/null || true", "changed_when": False}
        made.append({"name": "The running kernel's settings", **read})
    return made


def _task(state: State, source: str) -> dict[str, Any]:
    kind = state["kind"]
    attributes = {key: state[key] for key in ("owner", "group", "mode") if key in state}
    if kind == "packages":
        return {"name": "Packages", "ansible.builtin.apt": {"name": state["names"], "state": "present"}}
    if kind == "directory":
        arguments = {"path": state["path"], "state": "directory", **attributes}
        return {"name": state["path"], "ansible.builtin.file": arguments}
    if kind == "file":
        return {"name": state["path"], "ansible.builtin.copy": {"src": source, "dest": state["path"], **attributes}}
    if kind == "absent":
        return {"name": f"no {state['path']}", "ansible.builtin.file": {"path": state["path"], "state": "absent"}}
    if kind == "unit":
        arguments = {"name": state["name"], "enabled": state["enabled"]}
        if state["active"]:
            arguments["state"] = "started"
        return {"name": state["name"], "ansible.builtin.systemd_service": arguments}
    if kind == "masked":
        arguments = {"name": state["name"], "enabled": False, "masked": True, "state": "stopped"}
        return {"name": f"no {state['name']}", "ansible.builtin.systemd_service": arguments}
    if kind == "user":
        return {"name": state["name"], "ansible.builtin.user": {"name": state["name"], "shell": state["shell"]}}
    raise BenchmarkError(f"states: there is no task for {kind} (add it to benchmarks/playbook.py)")


def write(states: Sequence[State], connection: Mapping[str, Any], folder: Path) -> list[str]:
    """Writes playbook, inventory, configuration and contents; returns the command that applies them.

    `connection` is pyinfra's data for the gateway. The configuration is what is known to make Ansible fast: pipelining,
    a connection that persists, no facts that nothing uses, no search for an interpreter.
    """
    (folder / "files").mkdir(mode=0o700)
    for number, state in enumerate(states):
        if state["kind"] == "file":
            with os.fdopen(os.open(folder / "files" / str(number), os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write(base64.b64decode(state["content"]))
    play = {"hosts": "all", "gather_facts": False, "become": bool(connection["_sudo"]), "tasks": tasks(states)}
    # YAML contains JSON.
    (folder / "playbook.yml").write_text(json.dumps([play], indent=1))
    variables = {
        "ansible_host": connection["ssh_hostname"],
        "ansible_port": connection["ssh_port"],
        "ansible_user": connection["ssh_user"],
        "ansible_ssh_private_key_file": connection["ssh_key"],
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    (folder / "inventory.yml").write_text(json.dumps({"all": {"hosts": {"gateway": variables}}}))
    known = f"-o UserKnownHostsFile={connection['ssh_known_hosts_file']} -o StrictHostKeyChecking=yes"
    (folder / "ansible.cfg").write_text(
        "[defaults]\nretry_files_enabled = False\nlocalhost_warning = False\n"
        "[ssh_connection]\npipelining = True\n"
        f"control_path_dir = {folder}/cp\n"
        f"ssh_args = -o ControlMaster=auto -o ControlPersist=60s {known}\n"
    )
    return [str(ENVIRONMENT / "bin" / "ansible-playbook"), "-i", "inventory.yml", "playbook.yml"]
