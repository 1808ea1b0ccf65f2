"""`python -m lab up|down|status|plumb|restart|shell`: the lab's usual layout, without a site."""

from __future__ import annotations

import argparse
import sys

import lab


def main() -> int:
    """Parse the command line and do it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m lab")
    parser.add_argument("--name", default=lab.default_name(), help="the lab's name")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("up")
    build.add_argument("--debian", default="12", choices=("12", "13"))
    build.add_argument("--gateways", type=int, default=1)
    build.add_argument("--first", type=int, default=10, help="the second number of its prefixes: 10.N.x.0/24")
    for command in ("down", "status", "plumb"):
        commands.add_parser(command)
    for command in ("shell", "restart"):
        commands.add_parser(command).add_argument("host")
    run = commands.add_parser("run")
    run.add_argument("host")
    run.add_argument("argv", nargs=argparse.REMAINDER)
    chosen = parser.parse_args()
    try:
        return _do(chosen)
    except lab.LabError as error:
        print(error, file=sys.stderr)
        return 1


def _do(chosen: argparse.Namespace) -> int:
    if chosen.command == "up":
        lab.up(lab.standard(chosen.name, chosen.gateways, first=chosen.first), chosen.debian)
    elif chosen.command == "down":
        lab.down(chosen.name)
    elif chosen.command == "plumb":
        lab.plumb(chosen.name)
    elif chosen.command == "restart":
        lab.restart(chosen.name, chosen.host)
    elif chosen.command == "shell":
        return lab.shell(chosen.name, chosen.host)
    elif chosen.command == "run":
        done = lab.run(chosen.name, chosen.host, chosen.argv)
        sys.stdout.write(done.stdout)
        sys.stderr.write(done.stderr)
        return done.returncode
    else:
        for row in lab.status(chosen.name):
            print(f"{row.host:12} {row.kind:9} {row.status:9} {row.segment:11} {' '.join(row.addresses)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
