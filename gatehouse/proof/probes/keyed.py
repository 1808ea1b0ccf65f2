"""TLS with a pre-shared key (RFC 8446 §2.2, RFC 4279), by OpenSSL's own library: Python's ssl learnt it in 3.13.

The library reads and writes memory; what goes over the wire is this side's own socket, so that its timeouts hold.
"""

from __future__ import annotations

import ctypes
import socket
import ssl
import time
from typing import Any

from gatehouse.proof.probes.reach import DEFAULT_TIMEOUT, Probe, Result, family_of, outcome_of, patience
from gatehouse.proof.probes.tls import failed

VERSIONS = {"1.2": 0x0303, "1.3": 0x0304}
_SET_MINIMUM, _SET_MAXIMUM = 123, 124  # SSL_CTRL_SET_MIN_PROTO_VERSION and …MAX…
_WANT_READ, _ZERO_RETURN = 2, 6  # SSL_get_error(3)
_GIVE = ctypes.CFUNCTYPE(
    ctypes.c_uint, *(ctypes.c_void_p,) * 3, ctypes.c_uint, ctypes.POINTER(ctypes.c_ubyte), ctypes.c_uint
)
_POINTERS = {
    "TLS_client_method": (),
    "SSL_CTX_new": (ctypes.c_void_p,),
    "SSL_new": (ctypes.c_void_p,),
    "SSL_get_current_cipher": (ctypes.c_void_p,),
    "SSL_get_session": (ctypes.c_void_p,),
    "BIO_s_mem": (),
    "BIO_new": (ctypes.c_void_p,),
}


def _library() -> Any:
    """libssl, which brings libcrypto along."""
    library = ctypes.CDLL("libssl.so.3", mode=ctypes.RTLD_GLOBAL)
    for name, arguments in _POINTERS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = ctypes.c_void_p, arguments
    pointer, number = ctypes.c_void_p, ctypes.c_int
    library.SSL_CTX_ctrl.argtypes = (pointer, number, ctypes.c_long, pointer)
    library.SSL_CTX_ctrl.restype = ctypes.c_long
    for name in ("SSL_CTX_set_psk_client_callback", "SSL_CTX_set_cipher_list"):
        getattr(library, name).argtypes = (pointer, pointer)
    library.SSL_set_bio.argtypes = (pointer, pointer, pointer)
    for name in ("SSL_connect", "SSL_free", "SSL_CTX_free", "SSL_get_version", "SSL_CIPHER_get_name"):
        getattr(library, name).argtypes = (pointer,)
    library.SSL_SESSION_has_ticket.argtypes = (pointer,)
    library.SSL_get_version.restype = library.SSL_CIPHER_get_name.restype = ctypes.c_char_p
    library.SSL_get_error.argtypes = (pointer, number)
    for name in ("SSL_read", "SSL_write", "BIO_read", "BIO_write"):
        getattr(library, name).argtypes = (pointer, pointer, number)
    library.ERR_get_error.restype = ctypes.c_ulong
    library.ERR_reason_error_string.argtypes = (ctypes.c_ulong,)
    library.ERR_reason_error_string.restype = ctypes.c_char_p
    return library


class Connection:
    """A TLS connection over `wire`; the client says `identity` and has `key` (bytes). Raises `ssl.SSLError`, OSError.

    `sendall`, `recv`, `settimeout` and `close` are as those of a socket.
    """

    def __init__(self, wire: socket.socket, identity: str, key: bytes, maximum: str = "1.3") -> None:
        self._wire, self._library = wire, _library()

        def give(_ssl: Any, _hint: Any, name: int, longest: int, where: Any, room: int) -> int:
            said = identity.encode() + b"\0"
            if len(said) > longest or len(key) > room:
                return 0
            ctypes.memmove(name, said, len(said))
            ctypes.memmove(where, key, len(key))
            return len(key)

        self._give = _GIVE(give)  # kept: the library calls it
        lib = self._library
        self._context = lib.SSL_CTX_new(lib.TLS_client_method())
        lib.SSL_CTX_ctrl(self._context, _SET_MINIMUM, VERSIONS["1.2"], None)
        lib.SSL_CTX_ctrl(self._context, _SET_MAXIMUM, VERSIONS[maximum], None)
        # All that go with keys, so that it is the server that chooses.
        lib.SSL_CTX_set_cipher_list(self._context, b"PSK")
        lib.SSL_CTX_set_psk_client_callback(self._context, ctypes.cast(self._give, ctypes.c_void_p))
        self._ssl = lib.SSL_new(self._context)
        self._in, self._out = lib.BIO_new(lib.BIO_s_mem()), lib.BIO_new(lib.BIO_s_mem())
        lib.SSL_set_bio(self._ssl, self._in, self._out)
        try:
            self._do(lambda: lib.SSL_connect(self._ssl))
        except BaseException:
            self.close()
            raise

    def agreed(self) -> Result:
        """Version and suite."""
        lib = self._library
        version, cipher = lib.SSL_get_version(self._ssl), lib.SSL_CIPHER_get_name(lib.SSL_get_current_cipher(self._ssl))
        return {"version": version.decode().removeprefix("TLSv"), "cipher": cipher.decode()}

    def has_ticket(self) -> bool:
        """Whether the server gave a ticket: as `tls.has_ticket`."""
        session = self._library.SSL_get_session(self._ssl)
        return bool(session and self._library.SSL_SESSION_has_ticket(session))

    def sendall(self, data: bytes) -> None:
        """Sends all of it."""
        self._do(lambda: self._library.SSL_write(self._ssl, data, len(data)))

    def recv(self, most: int) -> bytes:
        """What has come, at most so much; nothing when the other side has said goodbye."""
        buffer = ctypes.create_string_buffer(most)
        length = self._do(lambda: self._library.SSL_read(self._ssl, buffer, most))
        return buffer.raw[:length]

    def settimeout(self, seconds: float | None) -> None:
        """For each wait."""
        self._wire.settimeout(seconds)

    def getsockname(self) -> Any:
        """This side's address."""
        return self._wire.getsockname()

    def close(self) -> None:
        """Closes the wire, too."""
        self._wire.close()
        if self._ssl:
            self._library.SSL_free(self._ssl)
            self._library.SSL_CTX_free(self._context)
            self._ssl = None

    def _do(self, step: Any) -> int:
        """Repeats a step of the library's until it is done, with what it wants to send and to read in between."""
        if not self._ssl:
            raise ConnectionError("closed")
        limit = self._wire.gettimeout()
        end = time.monotonic() + (60 if limit is None else limit)
        while True:
            while self._library.ERR_get_error():
                pass
            done = int(step())
            problem = 0 if done > 0 else self._library.SSL_get_error(self._ssl, done)
            why = self._library.ERR_get_error()
            self._flush()
            if done > 0:
                return done
            if problem == _ZERO_RETURN:
                return 0
            if problem != _WANT_READ:
                error = ssl.SSLError(1, "refused")
                error.reason = (self._library.ERR_reason_error_string(why) or b"ended").decode()
                raise error
            if time.monotonic() > end:
                raise TimeoutError("no answer")
            data = self._wire.recv(16_384)
            if not data:
                raise ConnectionResetError("ended without a word")
            self._library.BIO_write(self._in, data, len(data))

    def _flush(self) -> None:
        buffer = ctypes.create_string_buffer(16_384)
        while (length := self._library.BIO_read(self._out, buffer, len(buffer))) > 0:
            self._wire.sendall(buffer.raw[:length])


def open_keyed(probe: Probe) -> tuple[Connection | None, Result]:
    """Connects and shakes hands with `identity` and `psk` (hex), up to TLS `maximum`: as `tls.open_session` does."""
    wire = socket.socket(family_of(probe["address"]), socket.SOCK_STREAM)
    wire.settimeout(patience(probe, 2 * DEFAULT_TIMEOUT))
    try:
        wire.connect((probe["address"], probe["port"]))
    except OSError as error:
        wire.close()
        return None, outcome_of(error)
    try:
        connection = Connection(wire, probe["identity"], bytes.fromhex(probe["psk"]), probe.get("maximum", "1.3"))
    except OSError as error:
        return None, failed(error)
    return connection, {"outcome": "agreed", "source": connection.getsockname()[0], **connection.agreed()}
