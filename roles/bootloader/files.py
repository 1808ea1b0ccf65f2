"""What is put on a gateway for its boot loader, and the shell that makes its menu anew."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from gatehouse.identity import bootloader
from roles.bootloader import ARGUMENTS, MENU, SCRIPT, SETTINGS, SUPERUSER
from roles.rendering import STAGED, File, template
from roles.target import Target

# Neither is run from where it is staged: /run may hold nothing that can be.
CHECK = f'sh -n "$STAGED"{SETTINGS} && sh "$STAGED"{SCRIPT} | grub-script-check'
_HEREDOC = b"cat <<'EOF'\n"


def configuration(target: Target) -> list[File]:
    """What grub-mkconfig(8) makes the menu from, beside Debian's own; the script, with the hash, is root's alone."""
    hashed = bootloader.password_hash(target.pki.vault, target.name)
    return [
        template("bootloader", SCRIPT, mode=0o700, superuser=SUPERUSER, hash=hashed),
        template("bootloader", SETTINGS, arguments=" ".join(ARGUMENTS)),
    ]


def digest(script: File) -> str:
    """The SHA-256 of what the script adds to the menu."""
    return sha256(script.content.partition(_HEREDOC)[2].removesuffix(b"EOF\n")).hexdigest()


def making() -> tuple[str, str]:
    """Shell that makes the menu anew, and what it reads on standard input: the judge of it, which has the last word.

    A menu that is refused replaces none, and the kit's script is left out of the next one that Debian makes, with a new
    kernel: better one that asks nobody than one that waits for a password at each start.
    """
    beside = f"{Path(MENU).parent}/.{Path(MENU).name}.gatehouse-new"
    judged = " ".join(['grub-script-check "$MADE/menu" && python3 -I - "$MADE/menu"', SUPERUSER, *ARGUMENTS])
    script = (
        f"set -eu; umask 077; MADE=$(mktemp -d {STAGED}.XXXXXX); trap 'rm -rf \"$MADE\" {beside}' EXIT;"
        ' grub-mkconfig -o "$MADE/menu" >"$MADE/said" 2>&1 </dev/null ||'
        ' { tail -n 5 "$MADE/said" >&2; echo "gatehouse: no menu made for the boot loader: the former one stays" >&2;'
        f" exit 1; }}; {{ {judged}; }} || {{ chmod a-x {SCRIPT};"
        ' echo "gatehouse: the boot loader would not do as it shall: its former menu stays" >&2; exit 1; };'
        f' cp -- "$MADE/menu" {beside}; sync -- {beside}; mv -fT -- {beside} {MENU}'
    )
    return script, Path(__file__).with_name("menu.py").read_text()
