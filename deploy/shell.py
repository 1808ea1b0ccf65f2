"""A shell on the gateway that is asked one thing after the other, without a login, a sudo and a new shell for each."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from paramiko import Channel, SSHException

PATIENCE = 60  # seconds, for all questions of one script


class Shell:
    """A `sh` at the other end of an SSH channel. Once something goes wrong it answers nothing any more."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._output = channel.makefile("r")
        self._gone = False

    def ask(self, commands: Sequence[str]) -> list[list[str] | None]:
        """The lines that each command prints; None for one that fails, and for all if the shell is gone.

        Commands read nothing from standard input, and what they say on standard error is dropped: whoever gets None
        runs the command in the usual way, and reports.
        """
        end = f"answered-{secrets.token_hex(8)}"
        parts = [f"( {command}\n) </dev/null 2>/dev/null; printf '\\n{end} %s\\n' $?\n" for command in commands]
        answers: list[list[str] | None] = []
        try:
            if self._gone:
                raise EOFError
            self._channel.settimeout(PATIENCE)
            self._channel.sendall("".join(parts).encode())
            answers.extend(self._answer(end) for _ in commands)
        except (OSError, EOFError, SSHException, UnicodeDecodeError):
            self._gone = True
        return answers + [None] * (len(commands) - len(answers))

    def _answer(self, end: str) -> list[str] | None:
        lines: list[str] = []
        for line in self._output:
            text = str(line).rstrip("\n")
            if text.startswith(f"{end} "):
                # The end stands on a line of its own, whether the answer ended its last line or not.
                answer = lines[:-1] if lines[-1:] == [""] else lines
                return answer if text == f"{end} 0" else None
            lines.append(text)
        raise EOFError
