"""pyinfra reads this first. An inventory without hosts is an error: pyinfra itself would warn, and exit with 0."""

import sys
from pathlib import Path

for _argument in sys.argv[1:]:
    if _argument.startswith("inventories/"):
        _inventory = Path(_argument)
        if not _inventory.is_file():
            sys.exit(f"{_argument}: no such inventory (`./kit init {_inventory.name}` makes one)")
        if "hosts(" not in _inventory.read_text(errors="replace"):
            sys.exit(f'{_argument}: names no hosts (let it say `{_inventory.name} = hosts("{_inventory.name}")`)')
