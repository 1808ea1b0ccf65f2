"""Writes the device registry: one writer at a time, in one step, and what people wrote between the lines stays.

A change touches the lines of its own device alone: parsing ten thousand tables in full, as tomlkit would to keep their
comments, takes half a minute.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT

from gatehouse.errors import GatehouseError
from gatehouse.identity.files import locked, write_private
from gatehouse.site import registry
from gatehouse.site.model import Device
from gatehouse.site.problems import SiteError

_HEADER = re.compile(r"^[ \t]*\[\[[ \t]*device[ \t]*\]\][ \t]*(?:#.*)?\r?$", re.MULTILINE)
_TAIL = re.compile(r"(?:^[ \t\r]*(?:#[^\n]*)?\n)*\Z", re.MULTILINE)
_DEFAULTS = {name: field.default for name, field in Device.model_fields.items()}
_SIMPLE = re.compile(r"[ !#-\[\]-~]*")


class RegistryError(GatehouseError):
    """The registry can't be written as asked; it is as it was."""


class Registry:
    """A site's registry, open for changes. They happen in a `transaction`, which re-reads what others wrote.

    Raises `SiteError` for a registry that can't be read, `RegistryError` for a change that can't be made.
    """

    def __init__(self, path: Path) -> None:
        self._shown = path
        self._path = Path(os.path.realpath(path))
        self._raw: bytes | None = None
        self._entries: dict[str, Mapping[str, Any]] = {}
        self._added: dict[str, Device] = {}
        self._changed: dict[str, dict[str, Any]] = {}
        self._writing = False

    def read(self) -> Mapping[str, Mapping[str, Any]]:
        """Read the file, unless it is as it was; return the entries by name."""
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            raw = b""
        except OSError as error:
            raise RegistryError(f"{self._shown}: can't be read ({error.strerror}); mend its owner and mode") from None
        if raw != self._raw:
            entries: dict[str, Mapping[str, Any]] = {}
            for number, entry in enumerate(registry.parse(raw, self._shown), 1):
                name = entry.get("name")
                if not isinstance(name, str) or name in entries:
                    raise RegistryError(
                        f"{self._shown}: device {number} has no name, or that of another; give each its own"
                    )
                entries[name] = entry
            self._raw, self._entries = raw, entries
        return self._entries

    @property
    def entries(self) -> Mapping[str, Mapping[str, Any]]:
        """The entries by name as they were last read, or written."""
        return self._entries

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Registry]:
        """Hold the lock, re-read the file, run the block, write once; when either fails the file stays as it was.

        Raises `files.Busy` when another process keeps the lock.
        """
        with contextlib.ExitStack() as stack:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self._path))
            except OSError as error:
                raise self._unwritten(error) from None
            self.read()
            self._writing = True
            try:
                yield self
                if self._added or self._changed:
                    self._write()
            finally:
                self._writing = False
                self._added, self._changed = {}, {}

    def add(self, devices: Iterable[Device]) -> None:
        """Add devices at the end. Inside a `transaction`; none may be there yet."""
        self._in_transaction()
        for device in devices:
            if device.name in self._entries or device.name in self._added:
                raise RegistryError(f"{self._shown}: '{device.name}' is there already; choose another name")
            self._added[device.name] = device

    def change(self, name: str, **facts: Any) -> None:
        """Set facts of a device that is there: text, whole numbers, moments, lists of text; None removes one."""
        self._in_transaction()
        if name not in self._entries:
            raise RegistryError(f"{self._shown}: no device '{name}'; `./kit devices` lists them")
        self._changed.setdefault(name, {}).update(facts)

    def _in_transaction(self) -> None:
        if not self._writing:
            raise RuntimeError("a registry is changed in a transaction")

    def _write(self) -> None:
        text = (self._raw or b"").decode()
        entries = {**self._entries, **{n: _merged(self._entries[n], facts) for n, facts in self._changed.items()}}
        headers = [found.start() for found in _HEADER.finditer(text)]
        # a header in unusual dress, or a longer text that may hold what looks like one
        unusual = len(headers) != len(entries) or '"""' in text or "'''" in text
        if self._changed:
            text = _edited(text, self._changed) if unusual else self._with_changes(text, headers, entries)
        if self._added:
            new = "".join(f"\n[[device]]\n{_lines(facts_of(device))}" for device in self._added.values())
            entries |= {entry["name"]: entry for entry in registry.parse(new.encode(), self._shown)}
            text += new if text.endswith("\n") or not text else f"\n{new}"
        if unusual:
            self._check(text, list(entries.values()))
        raw = text.encode()
        try:
            mode = stat.S_IMODE(self._path.stat().st_mode) if self._path.exists() else 0o644
            write_private(self._path, raw, mode)
        except OSError as error:
            raise self._unwritten(error) from None
        self._raw, self._entries = raw, entries

    def _with_changes(self, text: str, headers: list[int], entries: Mapping[str, Mapping[str, Any]]) -> str:
        pieces = [text[: headers[0]]]
        for name, begin, end in zip(self._entries, headers, [*headers[1:], len(text)], strict=True):
            block = text[begin:end]
            if name in self._changed:
                # what stands above the next header is the next device's
                tail = _TAIL.search(block)
                cut = tail.start() if tail else len(block)
                block, rest = _edited(block[:cut], {name: self._changed[name]}), block[cut:]
                self._check(block, [entries[name]])
                block += rest
            pieces.append(block)
        return "".join(pieces)

    def _check(self, text: str, expected: list[Mapping[str, Any]]) -> None:
        """Nothing is written that does not read back as what was asked for."""
        try:
            found = registry.parse(text.encode(), self._shown)
        except SiteError:
            found = []
        if found != expected:
            names = ", ".join([*self._changed, *self._added][:3])
            raise RegistryError(f"{self._shown}: no place for {names}; write a [[device]] table, one fact a line")

    def _unwritten(self, error: OSError) -> RegistryError:
        mend = "make room, or mend the mode of its directory, then run this again"
        return RegistryError(f"{self._shown}: not written ({error.strerror}), it is as it was; {mend}")


def facts_of(device: Device) -> dict[str, Any]:
    """What the registry says of a device: its facts without those that are as by default."""
    facts = {name: getattr(device, name) for name in _DEFAULTS}
    # the segment is too important to be left to a default
    return {name: _plain(fact) for name, fact in facts.items() if fact != _DEFAULTS[name] or name == "segment"}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.UTC).replace(microsecond=0)
    if isinstance(value, tuple | list):
        return [str(item) for item in value]
    return value if isinstance(value, int) else str(value)


def _merged(entry: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    changed = {name: _plain(value) for name, value in facts.items() if value is not None}
    return {name: value for name, value in entry.items() if name not in facts} | changed


def _lines(facts: Mapping[str, Any]) -> str:
    return "".join(f"{name} = {_toml(value)}\n" for name, value in facts.items())


def _toml(value: Any) -> str:
    if isinstance(value, datetime.datetime):
        return f"{value:%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if _SIMPLE.fullmatch(value) else tomlkit.string(value).as_string()


def _edited(text: str, changes: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables of devices with the changes made in them, and all else as it was."""
    try:
        document = tomlkit.parse(text)
        tables = document["device"]
        for table in tables if isinstance(tables, AoT | list) else []:
            for fact, value in changes.get(str(table["name"]), {}).items():
                if value is None:
                    table.pop(fact, None)
                else:
                    table[fact] = tomlkit.value(_toml(_plain(value)))
        return tomlkit.dumps(document)
    except (TOMLKitError, LookupError, TypeError, ValueError):
        return text  # the caller sees that nothing has changed, and says so
