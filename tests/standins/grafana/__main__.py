"""`python3 -m tests.standins.grafana FILE`: builds the package."""

import sys
from pathlib import Path

from tests.standins import grafana

grafana.build(Path(sys.argv[1]))
