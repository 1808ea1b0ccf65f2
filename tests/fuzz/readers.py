"""Feeds the readers of foreign bytes with whatever makes them take new paths, for a bounded time.

    python tests/fuzz/readers.py csr 60                 60 seconds; also: registry, renewal, token, vault, backup,
                                                        message, topic, content
    python tests/fuzz/readers.py message 1000000x       a million inputs

It needs atheris (`pip install atheris`), which guides itself by what code each input reaches; the tests in tests/unit
try random inputs without it. A reader may answer or refuse with its own error, in one printable line; all else is a
finding: it is printed, and the input is kept as `crash-…` in a folder that is named.
"""

from __future__ import annotations

import datetime
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

try:
    import atheris
except ImportError:
    sys.exit("fuzz: atheris is missing (pip install atheris; it has wheels for Linux on x86-64)")

with atheris.instrument_imports(include=["gatehouse", "cryptography", "jwt", "tomllib"]):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import NameOID

    from gatehouse.api import tokens
    from gatehouse.errors import GatehouseError
    from gatehouse.identity import age, backup, document, jwt, renewal
    from gatehouse.identity.authority import new_key
    from gatehouse.identity.csr import read_csr
    from gatehouse.identity.pki import Pki
    from gatehouse.identity.store import SecretStore
    from gatehouse.messages import Message, points, sign, sign_json, topics, verify
    from gatehouse.site import registry

NAME, DNS = "pump-02", "pump-02.devices.home.arpa"
STORE = SecretStore()
PKI = Pki(STORE, "home", "home.arpa").ensure()
NOW = datetime.datetime.now(datetime.UTC)
SECRET_KEY, RECIPIENT = age.generate()

_key = new_key()
_csr = (
    x509.CertificateSigningRequestBuilder()
    .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)]))
    .add_extension(x509.SubjectAlternativeName([x509.DNSName(DNS)]), critical=False)
    .sign(_key, hashes.SHA256())
)
CSR = _csr.public_bytes(serialization.Encoding.DER)
CERTIFICATE = PKI.device(NAME, public_key=_key.public_key()).certificate_pem
TOKEN = jwt.issue(STORE, "home", "anna", "api")
REGISTRY = b'# mine\n[[device]]\nname = "pump-02"\nmodel = "m"\ngateway = "gw"\nserials = ["ab", "cd"]\n'
TOPIC = f"devices/{NAME}/telemetry/climate"
KEYS = {NAME: {1: bytes(range(32))}}
MESSAGE = sign(KEYS[NAME][1], TOPIC, b'{"temperature": 21.5}', number=1, sequence=7, time_ms=1_790_000_000_000)
JSON_MESSAGE = sign_json(KEYS[NAME][1], {"temperature": 21.5, "timestamp": 1_790_000_000, "seq": 7})
VAULT = (
    b'{"format": 1, "generation": 7, "recipients": ["%s"], "names": {}, "left": [],'
    b' "secrets": {"a": {"text": "b", "kind": "secret", "created": "2025-01-31T12:00:00Z"}}}'
)


def a_backup() -> bytes:
    made = backup.Backup("home", NOW, {"vault.age": b"x", "inventory": b"y"})
    return age.decrypt(backup.pack(made, [RECIPIENT]), [SECRET_KEY])


def a_message(data: bytes) -> None:
    """Nothing is taken but what was signed."""
    found = verify(KEYS, TOPIC, data, json_form=True)
    if data != MESSAGE and (found.form, found.sequence, found.content) != (1, 7, b'{"temperature": 21.5}'):
        raise AssertionError(f"taken: {data!r}")


# what: (a reader of bytes, good examples to begin with)
READERS: dict[str, tuple[Callable[[bytes], object], list[bytes]]] = {
    "csr": (lambda data: read_csr(data, NAME, DNS), [CSR, _csr.public_bytes(serialization.Encoding.PEM)]),
    "registry": (lambda data: registry.parse(data, Path("home.toml")), [REGISTRY]),
    "renewal": (
        lambda data: renewal.read_request(renewal.request_topic(NAME), data, PKI, NOW),
        [renewal.compose(CSR, CERTIFICATE)],
    ),
    "token": (
        lambda data: tokens.check(data.decode("utf-8", "replace"), jwt.public_keys(STORE), "home", "api"),
        [TOKEN.encode()],
    ),
    "vault": (document.decode, [VAULT % RECIPIENT.encode()]),
    "message": (a_message, [MESSAGE, JSON_MESSAGE]),
    "topic": (lambda data: topics.parse(data.decode("utf-8", "replace")), [TOPIC.encode()]),
    "content": (lambda data: points.point(Message(NAME, "climate", 2, 1, 1, 1, data)), [b'{"a": 21.5, "b": "c"}']),
    "backup": (lambda data: backup.unpack("f", age.encrypt(data, [RECIPIENT]), [SECRET_KEY]), [a_backup()]),
}


def one(read: Callable[[bytes], object], data: bytes) -> None:
    """Give one input to a reader."""
    try:
        read(data)
    except document.Newer:
        pass
    except GatehouseError as error:
        lines = str(error).splitlines()
        if not lines or not all(line.isprintable() for line in lines):
            raise


def main(arguments: list[str]) -> None:
    """Fuzz the reader that is named, for so many seconds, or with so many inputs."""
    if len(arguments) != 2 or arguments[0] not in READERS or not arguments[1].removesuffix("x").isdigit():
        sys.exit(f"usage: python tests/fuzz/readers.py {'|'.join(READERS)} SECONDS|INPUTSx")
    read, examples = READERS[arguments[0]]
    folder = Path(tempfile.mkdtemp(prefix=f"gatehouse-fuzz-{arguments[0]}-"))
    (folder / "corpus").mkdir()
    for number, example in enumerate(examples):
        read(example)  # a target that refuses its own examples would find nothing
        (folder / "corpus" / f"example-{number}").write_bytes(example)
    much = arguments[1].removesuffix("x")
    unit, limit = ("inputs", "-runs") if arguments[1].endswith("x") else ("s", "-max_total_time")
    print(f"fuzz: {arguments[0]}, {much} {unit}; findings and corpus in {folder}", flush=True)
    options = [
        f"{limit}={much}",
        "-max_len=20000",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(folder / "corpus")], lambda data: one(read, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
