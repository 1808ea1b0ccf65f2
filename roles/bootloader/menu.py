"""What GRUB's menu, grub.cfg, lets somebody do who stands before the machine, and whether it starts by itself.

On a gateway it judges each new menu before that counts: `python3 -I - FILE SUPERUSER ARGUMENT… <menu.py`. It knows as
much of GRUB's language as grub-mkconfig(8) writes.
"""

import re
import sys
from collections.abc import Iterable
from typing import NamedTuple

_ENTRY = re.compile(r"(?:menuentry|submenu)\s+(.+?)\s*\{\s*(?:[^{]*\})?$")
_KERNEL = re.compile(r"linux(?:16|efi)?\s+(.+)$")
_OPTION = re.compile(r"set menuentry_id_option=\"?([^\"]*)\"?$")
_SET = r"^\s*set {}=[\"']?([^\"'\n]*)[\"']?\s*$"
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"|\\(.)")
_WORD = re.compile(r"(?:'[^']*'|\"[^\"]*\"|\\.|[^\s'\"\\])+")
_BY = "$menuentry_id_option"
# What 10_linux calls its entries.
_DEBIAN = "gnulinux-"


class Entry(NamedTuple):
    """An entry of the menu, or a menu within: its title, its id, and in how many menus it is."""

    title: str
    id: str
    depth: int
    free: bool
    """Whether it starts without a password."""
    kernels: list[str]
    """The arguments of each kernel that it starts, with the kernel's file before them."""


def entries(text: str) -> list[Entry]:
    """All entries, in order."""
    found: list[Entry] = []
    opened: list[Entry | None] = []  # what each brace that is open belongs to
    free = False  # what the option says that most entries name themselves by
    for line in (line.strip() for line in text.splitlines()):
        if option := _OPTION.match(line):
            words = option[1].split()
            free = "--unrestricted" in words or (_BY in words and free)
        elif entry := _ENTRY.match(line):
            within = [each for each in opened if each]
            found.append(_entry(_words(entry[1]), free, within))
            if not line.endswith("}"):
                opened.append(found[-1])
        elif line.endswith("{") and not line.startswith("#"):
            opened.append(None)
        elif line == "}" and opened:
            opened.pop()
        elif (kernel := _KERNEL.match(line)) and opened and (last := opened[-1]):
            last.kernels.append(kernel[1])
    return found


def _words(line: str) -> list[str]:
    """As GRUB reads them: quotes belong to none."""
    return [_QUOTED.sub(lambda each: "".join(filter(None, each.groups())), word) for word in _WORD.findall(line)]


def _entry(words: list[str], free: bool, within: list[Entry]) -> Entry:
    names = [following for word, following in zip(words, words[1:], strict=False) if word in ("--id", _BY)]
    mine = "--unrestricted" in words or (_BY in words and free)
    return Entry(words[0], names[0] if names else "", len(within), mine and all(each.free for each in within), [])


def started(text: str) -> list[Entry]:
    """What is started when nobody is there; all that Debian's script listed, where only GRUB itself knows."""
    menu = entries(text)
    chosen = (re.findall(_SET.format("default"), text, re.MULTILINE) or ["0"])[-1]
    top = [entry for entry in menu if not entry.depth]
    named = [entry for number, entry in enumerate(top) if chosen in (str(number), entry.title, entry.id)]
    return named or [entry for entry in menu if entry.id.startswith(_DEBIAN)]


def faults(text: str, superuser: str, arguments: Iterable[str]) -> list[str]:
    """What is wrong with a menu that `superuser` alone may change, and whose kernels of Debian's get `arguments`."""
    found = []
    said = re.findall(_SET.format("superusers"), text, re.MULTILINE)
    names = [name for name in re.split(r"[\s,;|&]+", said[-1]) if name] if said else []
    if names != [superuser]:
        found.append(f"entries and shell are open to {'everybody' if not names else ', '.join(names)}")
    elif not re.search(r"^\s*export superusers$", text, re.MULTILINE):
        found.append("in a menu within the menu nobody is asked: superusers is not exported")
    if not re.search(rf"^\s*password_pbkdf2 {re.escape(superuser)} grub\.pbkdf2\.sha512\.\d+\.", text, re.MULTILINE):
        found.append(f"{superuser} has no hashed password")
    if re.search(r"^\s*password\s", text, re.MULTILINE):
        found.append("a password stands in the clear")
    kernels = [each for entry in entries(text) if entry.id.startswith(_DEBIAN) for each in entry.kernels]
    if not kernels:
        found.append("there is no kernel of Debian's in it")
    asking = [entry.title for entry in started(text) if names and not entry.free]
    found += [f"'{title}' asks for a password: the machine does not start by itself" for title in asking]
    lacking = [word for word in arguments if any(word not in kernel.split() for kernel in kernels)]
    return found + [f"a kernel is not told {word}" for word in lacking]


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8", errors="replace") as file:
        wrong = faults(file.read(), sys.argv[2], sys.argv[3:])
    sys.exit("\n".join(wrong) or None)
