"""Debian's Chromium without a window, led by the Chrome DevTools Protocol over a pipe (`--remote-debugging-pipe`)."""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import select
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PATIENCE = 90.0  # seconds: a cold start on a busy machine
WIDTH, HEIGHT = 1280, 960


class Browser:
    """One page. `folder` is its home, `names` says which host name is at which address, `anchor` is trusted (PEM)."""

    def __init__(self, folder: Path, names: dict[str, str], anchor: bytes | None = None) -> None:
        self._folder, self._names = folder, names
        self._ids = itertools.count(1)
        self._read = b""
        folder.mkdir(parents=True)
        if anchor:
            database = f"sql:{folder}/.pki/nssdb"
            (folder / ".pki" / "nssdb").mkdir(parents=True)
            (folder / "anchor.pem").write_bytes(anchor)
            _run("certutil", "-d", database, "-N", "--empty-password")
            _run("certutil", "-d", database, "-A", "-t", "C,,", "-n", "site", "-i", f"{folder}/anchor.pem")

    def __enter__(self) -> Self:
        ours, theirs = _pipe(), _pipe()
        rules = ", ".join(f"MAP {name} {address}" for name, address in self._names.items())
        options = [
            "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={self._folder}/profile", f"--window-size={WIDTH},{HEIGHT}",
            f"--host-resolver-rules={rules}, EXCLUDE 127.0.0.1", "about:blank",
        ]  # fmt: skip
        # It listens on file 3 and answers on file 4.
        command = ["bash", "-c", f'exec "$@" 3<&{ours[0]} 4>&{theirs[1]}', "bash", "chromium", *options]
        self._process = subprocess.Popen(
            command, env={**os.environ, "HOME": str(self._folder)}, pass_fds=(ours[0], theirs[1]),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        os.close(ours[0])
        os.close(theirs[1])
        self._to, self._from = ours[1], theirs[0]
        try:
            self._begin()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _begin(self) -> None:
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._ask("Page.enable")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._to)
        os.close(self._from)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def open(self, url: str) -> str:
        """Goes there; empty, or why it can't, such as `net::ERR_CERT_AUTHORITY_INVALID`."""
        return str(self._ask("Page.navigate", url=url).get("errorText", ""))

    def says(self, script: str) -> Any:
        """What a script of JavaScript's comes to in the page."""
        found = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, script: str) -> None:
        """Waits until a script comes to something true."""
        end = time.monotonic() + PATIENCE
        # Between two pages there is no document to be asked.
        while not self.says(f"(() => {{ try {{ return Boolean({script}); }} catch {{ return false; }} }})()"):
            assert time.monotonic() < end, f"{script}: not so after {PATIENCE:.0f} s: {self.text()[:500]!r}"
            time.sleep(0.2)

    def text(self) -> str:
        """What can be read on the page."""
        return str(self.says("document.body ? document.body.innerText : ''"))

    def type(self, field: str, text: str) -> None:
        """Types into a field, given by its CSS selector."""
        self.until(f"document.querySelector({json.dumps(field)})")
        self.says(f"document.querySelector({json.dumps(field)}).focus()")
        self._ask("Input.insertText", text=text)

    def enter(self) -> None:
        """Presses Enter."""
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        self._ask("Input.dispatchKeyEvent", type="keyDown", **key)
        self._ask("Input.dispatchKeyEvent", type="keyUp", **key)

    def picture(self) -> bytes:
        """What is seen of the page, PNG."""
        return base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"])

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if hasattr(self, "_session"):
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + PATIENCE
        while True:
            said = self._next(end)
            if said.get("id") == number:
                assert "error" not in said, f"{method}: {said['error']}"
                result: dict[str, Any] = said["result"]
                return result

    def _next(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._from], [], [], max(0.0, end - time.monotonic()))
            part = os.read(self._from, 1 << 20) if ready else b""
            assert part, f"Chromium says nothing any more (status {self._process.poll()})"
            self._read += part
        line, _, self._read = self._read.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        return found


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are none of the files that Chromium expects it at."""
    made = os.pipe()
    moved = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 10) for file in made]
    for file in made:
        os.close(file)
    return moved[0], moved[1]


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
