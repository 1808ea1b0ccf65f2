"""A device's bundle as a partition of ESP-IDF's non-volatile storage (NVS): the table, and the binary made from it.

The format of both is ESP-IDF's ("NVS Partition Generator Utility"), the binary is made by its own generator.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from gatehouse.errors import GatehouseError

if TYPE_CHECKING:
    from gatehouse.identity.bundle import Bundle

NAMESPACE = "gatehouse"
SIZE = 0x6000
"""Bytes in the partition: the identity takes two of its six pages, the rest is for renewed certificates."""
_PAGE = 4096
_SMALLEST = 3 * _PAGE
_LARGEST = 0x100000


class NvsError(GatehouseError):
    """The partition can't be made."""


def table(bundle: Bundle) -> str:
    """The text of `nvs.csv`. Files are named, not copied in: it holds no secret, and is used in that directory."""
    if bundle.psk is not None:
        identity, pins = "psk,file,hex2bin,psk.key\n", ""
    else:
        identity, pins = _certified(bundle)
    numbered = enumerate(bundle.firmware_keys, 1)
    firmware = "".join(f"firmware_key_{number},data,hex2bin,{key.hex()}\n" for number, key in numbered)
    return f"""\
key,type,encoding,value
{NAMESPACE},namespace,,
name,data,string,{bundle.name}
broker_host,data,string,{bundle.broker.host}
broker_port,data,u16,{bundle.broker.port}
{identity}hmac_key,file,hex2bin,hmac.key
hmac_key_number,data,u32,{bundle.hmac_key_number}
{pins}{firmware}"""


def _certified(bundle: Bundle) -> tuple[str, str]:
    """The rows of a certificate, and of the broker's pins: a broker that is known by a shared key shows none."""
    key = "key,file,string,key.pem\n" if bundle.key_pem is not None else ""
    identity = f"""\
ca,file,string,ca.pem
certificate,file,string,certificate.pem
{key}"""
    return (
        identity,
        f"""\
pin,data,hex2bin,{bundle.broker.pins.spki_sha256}
pin_backup,data,hex2bin,{bundle.broker.pins.backup_spki_sha256}
pin_certificate,data,hex2bin,{bundle.broker.pins.certificate_sha256}
""",
    )


def partition(directory: Path, size: int = SIZE) -> bytes:
    """The binary partition of `size` bytes, from the `nvs.csv` in a directory and the files that it names.

    Raises `NvsError`, and OSError when one of them is not there.
    """
    # the generator takes a quarter of a second to import, and few enrolments ask for it
    from esp_idf_nvs_partition_gen import nvs_partition_gen as generator  # type: ignore[import-untyped]

    if size % _PAGE or not _SMALLEST <= size <= _LARGEST:
        raise NvsError(f"an NVS partition of {size:#x} bytes; use a multiple of 0x1000 from {_SMALLEST:#x}")
    image = io.BytesIO()
    # one page is kept free, as ESP-IDF demands of a partition that is written to
    storage = generator.nvs_open(image, size - _PAGE, generator.Page.VERSION2)
    try:
        with (directory / "nvs.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                kind, value = row["type"], row["value"]
                if kind == "file":
                    # read here: the generator would look in the working directory of the process
                    kind, value = "data", (directory / Path(value).name).read_text("ascii")
                generator.write_entry(storage, row["key"], kind, row["encoding"], value)
        generator.nvs_close(storage)
    except generator.InsufficientSizeError:
        raise NvsError(f"does not fit into an NVS partition of {size:#x} bytes; give it 0x1000 more") from None
    except (KeyError, TypeError, ValueError, generator.InputError):
        raise NvsError("nvs.csv is not as it was made; write the bundle again") from None
    return image.getvalue()
