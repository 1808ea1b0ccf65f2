"""Console of a lab machine: runs what comes over its virtual serial ports, as root. It has no network.

On `gatehouse.N` a request is one line of JSON: `id`, `argv`, `stdin` (base64) or null, `timeout` in seconds or null;
the answer is one line: `id`, `stdout`, `stderr` (base64), `returncode` (null: no end in time). On `gatehouse.shell` a
first line of JSON, `argv`, `term`, `rows`, `columns` and `end`, opens a terminal; `end` closes it.
"""

import base64
import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import threading
import time
from pathlib import Path

PORTS = Path("/dev/virtio-ports")


def receive(port):
    """What came; waits while nobody is at the other end, where reading returns at once, and nothing."""
    while True:
        data = os.read(port, 65536)
        if data:
            return data
        time.sleep(0.1)


def send(port, data):
    while data:
        data = data[os.write(port, data) :]


def line_of(port, pending):
    """One line; what came after it stays in `pending`."""
    while b"\n" not in pending:
        pending += receive(port)
    line, _, rest = bytes(pending).partition(b"\n")
    pending[:] = rest
    return line


def answered(request):
    given = request["stdin"]
    try:
        process = subprocess.Popen(
            request["argv"],
            stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"},
        )
    except OSError as error:
        return b"", f"{request['argv'][0]}: {error.strerror}\n".encode(), 127
    try:
        out, err = process.communicate(None if given is None else base64.b64decode(given), request["timeout"])
        return out, err, process.returncode
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return b"", b"", None


def serve(path):
    port, pending = os.open(path, os.O_RDWR), bytearray()
    while True:
        try:
            request = json.loads(line_of(port, pending))
            out, err, status = answered(request)
        except (ValueError, KeyError, TypeError):
            continue  # half a line of somebody who was killed
        texts = {"stdout": base64.b64encode(out).decode(), "stderr": base64.b64encode(err).decode()}
        send(port, json.dumps({"id": request["id"], "returncode": status, **texts}).encode() + b"\n")


def terminal(port, wanted, pending):
    child, master = pty.fork()
    if child == 0:
        home = {"HOME": "/root", "TERM": wanted["term"], "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"}
        os.chdir("/root")
        os.execvpe(wanted["argv"][0], wanted["argv"], home)  # noqa: S606
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", wanted["rows"], wanted["columns"], 0, 0))
    os.write(master, bytes(pending))
    pending.clear()
    with contextlib.suppress(OSError):  # the terminal is closed once its last process has ended
        while True:
            ready, _, _ = select.select([master, port], [], [])
            if master in ready:
                send(port, os.read(master, 65536))
            if port in ready:
                typed = os.read(port, 65536)
                if not typed:  # who sat there has left
                    os.kill(child, signal.SIGHUP)
                    break
                os.write(master, typed)
    os.close(master)
    os.waitpid(child, 0)
    send(port, wanted["end"].encode())


def shells(path):
    port, pending = os.open(path, os.O_RDWR), bytearray()
    while True:
        try:
            wanted = json.loads(line_of(port, pending))
            terminal(port, wanted, pending)
        except (ValueError, KeyError, TypeError):
            continue


def main():
    served, deadline = set(), time.monotonic() + 120
    while time.monotonic() < deadline:
        for path in set(PORTS.glob("gatehouse.*")) - served:  # udev names them one after the other
            served.add(path)
            threading.Thread(target=shells if path.name == "gatehouse.shell" else serve, args=(path,)).start()
        time.sleep(0.5)


if __name__ == "__main__":
    main()
