"""A device's bundle, `out/SITE/NAME/`: all that makes the device itself, in the formats that devices are flashed with.

`bundle.json` is written last, so a directory without it is one whose writer was killed. What is the same for every
device of a site stands in `out/SITE/` too, and is one file with two names where the file system can do that.
"""

from __future__ import annotations

import ctypes
import datetime
import errno
import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

from gatehouse.errors import GatehouseError
from gatehouse.identity import nvs
from gatehouse.identity.files import write_private
from gatehouse.identity.header import header
from gatehouse.identity.pins import Pins

_FORMAT = 1
_COMPLETE = "bundle.json"
_NO_LINKS = {errno.EMLINK, errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.ENOENT}


class BundleError(GatehouseError):
    """A bundle can't be written, or is none."""


@dataclass(frozen=True)
class Broker:
    """Where a device finds its broker, and by which keys it knows it."""

    host: str
    port: int
    addresses: tuple[str, ...]
    pins: Pins


@dataclass(frozen=True)
class Bundle:
    """What a device is given. `key_pem` is None when the key never left it; `hmac_key` is 32 bytes. Times are UTC.

    One that has `psk`, the 32 bytes that it shares with the broker, has no certificate: all of that is empty or None.
    """

    site: str
    name: str
    model: str
    gateway: str
    segment: str
    broker: Broker
    serial: str
    """Of the certificate, lower-case hex."""
    not_before: datetime.datetime | None
    not_after: datetime.datetime | None
    spki_sha256: str
    """Of the device's own public key, lower-case hex."""
    hmac_key_number: int
    ca_pem: bytes = field(repr=False)
    """The root: what the device trusts."""
    chain_pem: bytes = field(repr=False)
    """The authority that signed the certificate, and the root."""
    certificate_pem: bytes = field(repr=False)
    key_pem: bytes | None = field(repr=False)
    hmac_key: bytes = field(repr=False)
    psk: bytes | None = field(default=None, repr=False)
    firmware_keys: tuple[bytes, ...] = ()
    """What firmware is verified with: two public keys on P-256, X and Y, 64 bytes each; none where none is signed."""

    def facts(self) -> bytes:
        """What of it is public, as JSON."""
        # put together by hand: ten thousand times through an indenting encoder takes a second
        text = {name: json.dumps(getattr(self, name)) for name in ("site", "name", "model", "gateway", "segment")}
        return f"""\
{{
 "format": {_FORMAT},
 {", ".join(f'"{name}": {value}' for name, value in text.items())},
 "broker": {_broker_facts(self.broker)},
 {self._certificate_facts()},
 "hmac_key_number": {self.hmac_key_number},
 "firmware_keys": {json.dumps([key.hex() for key in self.firmware_keys])}
}}
""".encode()

    def _certificate_facts(self) -> str:
        if self.not_before is None or self.not_after is None:
            return '"authentication": "psk"'
        return f""""certificate": {{
  "serial": "{self.serial}",
  "not_before": "{self.not_before.isoformat()}",
  "not_after": "{self.not_after.isoformat()}",
  "spki_sha256": "{self.spki_sha256}"
 }}"""

    def own_files(self) -> dict[str, bytes]:
        """The files that are this device's, by name, in the order in which they are written."""
        files = {"hmac.key": self.hmac_key.hex().encode() + b"\n"}
        if self.psk is not None:
            files["psk.key"] = self.psk.hex().encode() + b"\n"
        else:
            files["certificate.pem"] = self.certificate_pem
        if self.key_pem is not None:
            files["key.pem"] = self.key_pem
        return files | {
            "nvs.csv": nvs.table(self).encode(),
            "gatehouse_device.h": header(self).encode(),
            _COMPLETE: self.facts(),
        }


def shared_files(ca_pem: bytes, chain_pem: bytes) -> dict[str, bytes]:
    """The files that every bundle of a site has, by name; without certificates there is little."""
    certificates = {"ca.pem": ca_pem, "chain.pem": chain_pem} if ca_pem else {}
    return {**certificates, "README.txt": _readme()}


def prepare(directory: Path, ca_pem: bytes, chain_pem: bytes) -> None:
    """Make `out/SITE/` (0700) with the shared files in it. Raises `BundleError`."""
    try:
        for place in (directory.parent, directory):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(directory, 0o700)
        for name, content in shared_files(ca_pem, chain_pem).items():
            path = directory / name
            if not path.exists() or path.read_bytes() != content:
                write_private(path, content)
    except OSError as error:
        raise _unwritten(directory, error) from None


def write(directory: Path, bundle: Bundle) -> None:
    """Write a bundle (0700, files 0600) into `out/SITE/`, which is prepared, over one that is there.

    On the disk for certain only after `settle`. Raises `BundleError`.
    """
    place = f"{directory}/{bundle.name}"
    try:
        try:
            os.mkdir(place, 0o700)
        except FileExistsError:
            with suppress(FileNotFoundError):
                os.unlink(f"{place}/{_COMPLETE}")  # first, so that what is left never passes for whole
            shutil.rmtree(place)
            os.mkdir(place, 0o700)
        here = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name, content in shared_files(bundle.ca_pem, bundle.chain_pem).items():
                _share(f"{directory}/{name}", here, name, content)
            for name, content in bundle.own_files().items():
                _create(here, name, content)
        finally:
            os.close(here)
    except OSError as error:
        raise _unwritten(place, error) from None


def rewrite(directory: Path, bundle: Bundle) -> list[str]:
    """Bring the files of a bundle that is there up to date, one at a time, and return the names of those that changed.

    Unlike `write` it never removes a file: the device's key may be nowhere else. Raises `BundleError`.
    """
    place = directory / bundle.name
    changed = []
    try:
        for name, content in {**shared_files(bundle.ca_pem, bundle.chain_pem), **bundle.own_files()}.items():
            path = place / name
            if not path.exists() or path.read_bytes() != content:
                write_private(path, content)
                changed.append(name)
    except OSError as error:
        raise _unwritten(place, error) from None
    return changed


def write_partition(directory: Path, size: int = nvs.SIZE) -> Path:
    """Make `nvs.bin` in a bundle's directory from its other files and return its path. Raises `BundleError`."""
    path = directory / "nvs.bin"
    try:
        write_private(path, nvs.partition(directory, size))
    except OSError as error:
        raise _unwritten(path, error) from None
    except nvs.NvsError as error:
        raise BundleError(f"{directory}: {error}") from None
    return path


def read(directory: Path) -> Bundle | None:
    """The bundle in a directory, None when there is none or it is not whole. Raises `BundleError`."""
    try:
        content = {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BundleError(f"{directory}: can't be read ({error.strerror}); mend its owner and mode") from None
    identity = {"psk.key"} if "psk.key" in content else {"ca.pem", "chain.pem", "certificate.pem"}
    if not content.keys() >= {_COMPLETE, "hmac.key", *identity}:
        return None
    try:
        facts = json.loads(content[_COMPLETE])
        broker, certificate = facts["broker"], facts.get("certificate")
        if (certificate is None) != (facts.get("authentication") == "psk" and "psk.key" in content):
            return None
        return Bundle(
            site=str(facts["site"]),
            name=str(facts["name"]),
            model=str(facts["model"]),
            gateway=str(facts["gateway"]),
            segment=str(facts["segment"]),
            broker=Broker(broker["host"], int(broker["port"]), tuple(broker["addresses"]), Pins(**broker["pins"])),
            serial=str(certificate["serial"]) if certificate else "",
            not_before=datetime.datetime.fromisoformat(certificate["not_before"]) if certificate else None,
            not_after=datetime.datetime.fromisoformat(certificate["not_after"]) if certificate else None,
            spki_sha256=str(certificate["spki_sha256"]) if certificate else "",
            hmac_key_number=int(facts["hmac_key_number"]),
            ca_pem=content["ca.pem"] if certificate else b"",
            chain_pem=content["chain.pem"] if certificate else b"",
            certificate_pem=content["certificate.pem"] if certificate else b"",
            key_pem=content.get("key.pem"),
            hmac_key=bytes.fromhex(content["hmac.key"].decode("ascii")),
            psk=bytes.fromhex(content["psk.key"].decode("ascii")) if "psk.key" in content else None,
            firmware_keys=tuple(bytes.fromhex(key) for key in facts.get("firmware_keys", ())),
        )
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


def settle(directory: Path) -> None:
    """Wait until all that was written below a directory is on the disk: one call for a thousand bundles."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if syncfs is None:
            os.sync()
        elif syncfs(descriptor):
            code = ctypes.get_errno()
            raise _unwritten(directory, OSError(code, os.strerror(code)))
    finally:
        os.close(descriptor)


@lru_cache(maxsize=64)
def _broker_facts(broker: Broker) -> str:
    return json.dumps(asdict(broker), indent=1).replace("\n", "\n ")


@lru_cache(maxsize=1)
def _readme() -> bytes:
    return Path(__file__).with_name("bundle.txt").read_bytes()


def _share(shared: str, here: int, name: str, content: bytes) -> None:
    try:
        os.link(shared, name, dst_dir_fd=here)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _create(here, name, content)


def _create(here: int, name: str, content: bytes) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=here)
    try:
        written = os.write(descriptor, content)
        while written < len(content):
            written += os.write(descriptor, content[written:])
    finally:
        os.close(descriptor)


def _unwritten(path: Path | str, error: OSError) -> BundleError:
    mend = "make room, or mend the owner and mode of that directory, then run this again: it goes on from there"
    return BundleError(f"{path}: not written ({error.strerror}); {mend}")
