"""The states that the operations of a deploy stand for, as plain data, so that another tool can be asked for the same.

A state is a dictionary: `kind` is `packages` (names), `directory` or `file` (path, owner, group, mode; content in
base64), `absent` (path), `unit` (name, enabled, active), `masked` (name), `setting` (key as sysctl.d has it, value) or
`user` (name, shell).
"""

from __future__ import annotations

import base64
import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from roles import lifecycle, undo
from roles.kernel.operations import settled, wanted
from roles.networkd.operations import configured
from roles.nftables.operations import loaded
from roles.ssh.operations import SHELL, cleared, prepared

State = dict[str, Any]


def of_operations(generators: Iterable[Callable[..., Any]]) -> tuple[list[State], list[str]]:
    """The states of pyinfra's prepared operations, each once, and the names of operations that have none here."""
    states: list[State] = []
    unknown: list[str] = []
    packages: set[str] = set()
    for generator in generators:
        call = inspect.getclosurevars(generator).nonlocals
        for function, args, kwargs in _unwrapped(call["func"], call["args"], call["kwargs"]):
            translate = _TRANSLATIONS.get(function)
            if translate is None:
                unknown.append(function.__name__)
                continue
            for state in translate(*args, **kwargs):
                if state["kind"] == "packages":
                    # `base` has stated the packages of all roles already.
                    if packages.issuperset(state["names"]):
                        continue
                    packages.update(state["names"])
                if state not in states:
                    states.append(state)
    return states, unknown


def _unwrapped(function: Any, args: Any, kwargs: Any) -> Iterator[tuple[Any, Any, Any]]:
    """A guarded change is made of the steps of other operations."""
    if function is not undo.guarded._inner:
        yield function, args, kwargs
        return
    for step in inspect.signature(function).bind(*args, **kwargs).arguments["steps"]:
        if isinstance(step, partial):
            yield step.func, step.args, step.keywords
        else:
            yield step, (), {}


def _packages(*names: str) -> list[State]:
    return [{"kind": "packages", "names": sorted(names)}]


def _files(*entries: lifecycle.File | lifecycle.Directory, check: str | None = None) -> Iterator[State]:
    for entry in entries:
        attributes = {"path": entry.path, "owner": entry.owner, "group": entry.group, "mode": f"{entry.mode:04o}"}
        if isinstance(entry, lifecycle.File):
            yield {"kind": "file", **attributes, "content": base64.b64encode(entry.content).decode()}
        else:
            yield {"kind": "directory", **attributes}


def _absent(*paths: str) -> list[State]:
    return [{"kind": "absent", "path": path} for path in paths]


def _running(unit: str, *_: Any, **__: Any) -> list[State]:
    return [{"kind": "unit", "name": unit, "enabled": True, "active": True}]


def _enabled(*units: str, start: bool = False) -> list[State]:
    return [{"kind": "unit", "name": unit, "enabled": True, "active": start} for unit in units]


def _stopped(*units: str) -> list[State]:
    return [{"kind": "masked", "name": unit} for unit in units]


def _settled(file: lifecycle.File) -> list[State]:
    return [{"kind": "setting", "key": key, "value": value} for key, value in wanted(file).items()]


def _prepared(user: str, *_: Any) -> list[State]:
    return [{"kind": "user", "name": user, "shell": SHELL}]


def _cleared(user: str, host_key: str, own: str) -> list[State]:
    others = (host_key.replace("ed25519", kind) for kind in ("rsa", "ecdsa"))
    return [{"kind": "absent", "path": f"{key}{suffix}"} for key in others for suffix in ("", ".pub")]


_TRANSLATIONS: dict[Any, Callable[..., Iterable[State]]] = {
    lifecycle.packages._inner: _packages,
    lifecycle.files._inner: _files,
    lifecycle.absent._inner: _absent,
    lifecycle.running._inner: _running,
    lifecycle.enabled._inner: _enabled,
    lifecycle.stopped._inner: _stopped,
    settled._inner: _settled,
    cleared._inner: _cleared,
    prepared: _prepared,
    configured: _running,
    loaded: _running,
}
