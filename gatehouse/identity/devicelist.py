"""Reads a list of devices to enrol: CSV as a spreadsheet writes it (RFC 4180), one device a line.

    name,model,gateway,segment,hardware_address,address,csr
    kitchen-01,esp32-sht31,,iot,02:00:00:00:00:01,,

`name` and `model` are needed, the other columns only where they say something. `csr` names a file, from where the list
is. A line that can't be read is refused by its number and hides none of the others.
"""

from __future__ import annotations

import csv
from pathlib import Path

from gatehouse.errors import GatehouseError
from gatehouse.identity.candidates import Refusal, Request

COLUMNS = ("name", "model", "gateway", "segment", "hardware_address", "address", "csr", "authentication")
_LONGEST_LINE = 4096
_LONGEST_LIST = 256 * 1024 * 1024
_LONGEST_REQUEST = 64 * 1024


class ListError(GatehouseError):
    """The list can't be read at all."""


def read_list(path: Path) -> tuple[list[Request], list[Refusal]]:
    """The requests in a CSV file, and the lines that are none. Raises `ListError` for a file that is no list."""
    try:
        if path.stat().st_size > _LONGEST_LIST:
            raise ListError(f"{path}: larger than {_LONGEST_LIST >> 20} MiB; split it")
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise ListError(f"{path}: can't be read ({error.strerror}); check the name and its mode") from None
    start = next((number for number, line in enumerate(lines) if line.strip()), None)
    if start is None:
        raise ListError(f"{path}: is empty; its first line names the columns: {','.join(COLUMNS)}")
    separator, columns = _header(path, start + 1, lines[start])
    requests: list[Request] = []
    refused: list[Refusal] = []
    for number, line in enumerate(lines[start + 1 :], start + 2):
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        try:
            requests.append(_request(number, _cells(line, separator), columns, path.parent))
        except ValueError as error:
            refused.append(Refusal(number, str(error)))
    return requests, refused


def _header(path: Path, number: int, line: bytes) -> tuple[str, list[str]]:
    """The separator and the columns; a spreadsheet in a language with decimal commas writes semicolons."""
    separator = ";" if b";" in line and b"," not in line else ","
    try:
        columns = [cell.lower() for cell in _cells(line, separator)]
    except ValueError as error:
        raise ListError(f"{path}: line {number}: {error}") from None
    for wrong in columns:
        if wrong not in COLUMNS or columns.count(wrong) > 1:
            raise ListError(
                f"{path}: line {number}: {ascii(wrong[:40])} is no column, or twice; name them as in"
                f" {','.join(COLUMNS)}"
            )
    if "name" not in columns:
        raise ListError(f"{path}: line {number}: no column 'name'; the first line names the columns")
    return separator, columns


def _cells(line: bytes, separator: str) -> list[str]:
    if len(line) > _LONGEST_LINE:
        raise ValueError(f"longer than {_LONGEST_LINE} bytes; is this a list of devices?")
    try:
        text = line.rstrip(b"\r").decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is no UTF-8; save the list as UTF-8") from None
    try:
        # line by line, so that an opened quote swallows its own line alone
        (cells,) = csv.reader([text], delimiter=separator, strict=True)
    except (csv.Error, ValueError):
        raise ValueError("has a quote that doesn't end, or in the wrong place; mend that line") from None
    return [cell.strip() for cell in cells]


def _request(number: int, cells: list[str], columns: list[str], directory: Path) -> Request:
    if len(cells) != len(columns):
        raise ValueError(f"has {len(cells)} fields and not {len(columns)}; mend that line")
    facts = {column: cell or None for column, cell in zip(columns, cells, strict=True)}
    name, file = facts.pop("name"), facts.pop("csr", None)
    return Request(name or "", **facts, csr=_csr(directory, file) if file else None, line=number)


def _csr(directory: Path, name: str) -> bytes:
    try:
        with (directory / name).open("rb") as file:
            return file.read(_LONGEST_REQUEST)
    except (OSError, ValueError) as error:
        raise ValueError(f"{ascii(name[:80])}: no certificate request can be read there ({error})") from None
