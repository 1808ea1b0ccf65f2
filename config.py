"""pyinfra reads this first. An inventory that isn't there is an error: pyinfra itself would warn, and exit with 0."""

import sys
from pathlib import Path

for _argument in sys.argv[1:]:
    if _argument.startswith("inventories/") and not Path(_argument).is_file():
        sys.exit(f"{_argument}: no such inventory (`./kit init {Path(_argument).name}` makes one)")
