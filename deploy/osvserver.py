"""OSV's question and answer on this machine's loopback, out of a downloaded archive: pip-audit reads no files."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from packaging.version import InvalidVersion

from gatehouse.proof.feeds import Entries, osv_answer

HOST = "127.0.0.1"
_LARGEST = 65536  # bytes of a question


@contextmanager
def serving(entries: Entries) -> Iterator[str]:
    """The address where `POST /v1/query` is answered, as long as the context is open."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802  the name is http.server's
            try:
                length = min(int(self.headers.get("Content-Length", 0)), _LARGEST)
                status, said = 200, json.dumps(osv_answer(entries, json.loads(self.rfile.read(length))))
            except (ValueError, KeyError, TypeError, InvalidVersion) as error:
                status, said = 400, json.dumps({"message": str(error)})
            body = said.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://{HOST}:{server.server_address[1]}/v1/query"
        finally:
            server.shutdown()
            thread.join()


def direct() -> dict[str, str]:
    """This process's environment, with no proxy between two programs of this machine."""
    known = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    without = ",".join(filter(None, (known, HOST)))
    return {**os.environ, "NO_PROXY": without, "no_proxy": without}
