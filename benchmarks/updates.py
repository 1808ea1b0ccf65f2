"""What updates cost: the library for devices in code and memory, and a gateway that serves 200 devices at once.

`python -m benchmarks.updates [--json]`; docs/benchmarks.md says what each figure means. Code is compiled with `-Os` by
Debian's gcc for ARM against mbedTLS's headers; mbedTLS itself is not counted. Memory is that of a whole update on this
machine: a release judged, fetched, compared and handed to the boot loader, on a stack that was painted before. The
devices of the lab are `benchmarks/fleet.py`'s.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import fleet, throwaway
from benchmarks.measure import ROOT, BenchmarkError, Ratio, Run, main, progress
from deploy import tools

DEVICE = ROOT / "device"
CODE = 32 * 1024
MEMORY = 24 * 1024
ARM = {
    "arm-none-eabi-gcc": "gcc-arm-none-eabi",
    "/usr/share/doc/libnewlib-arm-none-eabi": "libnewlib-arm-none-eabi",
}

# A device has no threads as mbedTLS knows them, nor the generator that Debian's has besides.
_CONFIGURATION = "".join(
    f"#undef MBEDTLS_{name}\n" for name in ("THREADING_C", "THREADING_PTHREAD", "HAVEGE_C", "NET_C", "TIMING_C")
)


def measure(chosen: argparse.Namespace) -> list[Ratio]:
    """The library's figures, and the fleet's unless none is asked for."""
    tools.ensure(progress, {**tools.COMPILER, **ARM})
    if not chosen.devices:
        return library()
    if not 1 <= chosen.devices <= 200 or chosen.kib not in range(8, 8193) or chosen.rounds < 1:
        raise BenchmarkError("--devices takes 0 to 200, --kib 8 to 8192, --rounds 1 or more")
    throwaway.enter("benchmarks.updates")
    return [*library(), *fleet.measure(chosen.devices, chosen.kib, chosen.rounds)]


def library() -> list[Ratio]:
    """The code of each part and of all, and the memory; in bytes, against what a device shall give at most."""
    with tempfile.TemporaryDirectory() as folder:
        parts = _code(Path(folder))
        memory = _memory(Path(folder))
    for name, size in sorted({**parts, **memory}.items()):
        progress(f"{name}: {size:,} bytes")
    ram = memory["update_struct"] + memory["update_stack"]
    return [
        _bytes("code, all of the library ÷ 32 kB", sum(parts.values()), CODE),
        _bytes("code, signing of messages alone ÷ 32 kB", parts["crypto"] + parts["message"], CODE),
        _bytes("memory of an update: struct and stack ÷ 24 kB", ram, MEMORY),
        _bytes("memory of signing a message: stack ÷ 24 kB", memory["sign_stack"], MEMORY),
        _bytes("what mbedTLS allocates for an update's signatures ÷ 24 kB", memory["update_heap_of_mbedtls"], MEMORY),
    ]


def _bytes(title: str, ours: int, limit: int) -> Ratio:
    return Ratio(f"{title} (in bytes)", [(Run(ours), Run(limit))], 1)


def _code(place: Path) -> dict[str, int]:
    """Bytes of code and constants of each source, for a Cortex-M4."""
    headers = place / "headers"
    # mbedTLS's own headers and no others of this machine
    for name in ("mbedtls", "psa"):
        if (found := Path("/usr/include") / name).exists():
            shutil.copytree(found, headers / name)
    (headers / "device.h").write_text(_CONFIGURATION)
    sizes = {}
    for source in sorted((DEVICE / "src").glob("*.c")):
        made = place / f"{source.stem}.o"
        _run(
            "arm-none-eabi-gcc", "-std=c99", "-mcpu=cortex-m4", "-mthumb", "-Os", "-Wall", "-Wextra", "-Werror",
            '-DMBEDTLS_USER_CONFIG_FILE="device.h"', f"-I{DEVICE}/include", "-isystem", str(headers), "-c", str(source),
            "-o", str(made),
        )  # fmt: skip
        text, data, *_ = _run("arm-none-eabi-size", str(made)).splitlines()[1].split()
        sizes[source.stem] = int(text) + int(data)
        if symbols := {"malloc", "calloc", "realloc"} & set(_run("arm-none-eabi-nm", "-u", str(made)).split()):
            raise BenchmarkError(f"{source.name}: calls {', '.join(symbols)}; the library allocates nothing")
    return sizes


def _memory(place: Path) -> dict[str, int]:
    """What `device/host/measure.c` prints."""
    made = place / "measure"
    sources = [str(DEVICE / "host" / "measure.c"), str(DEVICE / "host" / "memory.c")]
    _run(
        "gcc", "-std=c99", "-Os", "-Wall", "-Wextra", "-Werror",
        *(f"-I{DEVICE}/{folder}" for folder in ("include", "src", "host", "fuzz")), *sources,
        *map(str, sorted((DEVICE / "src").glob("*.c"))), "-Wl,--wrap=calloc,--wrap=free",
        "-Wl,-Bstatic", "-lmbedtls", "-lmbedx509", "-lmbedcrypto", "-Wl,-Bdynamic", "-lpthread", "-o", str(made),
    )  # fmt: skip
    lines = (line.split() for line in _run(str(made)).splitlines())
    return {name: int(number) for name, number in lines}


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"{Path(command[0]).name}: {(done.stderr.strip().splitlines() or ['failed'])[0]}")
    return done.stdout


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--devices", type=int, default=200, help="that update at once (default: 200; 0: no lab)")
    parser.add_argument("--kib", type=int, default=1024, help="size of the image in KiB (default: 1024)")
    parser.add_argument("--rounds", type=int, default=3, help="how often (default: 3)")


if __name__ == "__main__":
    sys.exit(main("updates", measure, _options))
