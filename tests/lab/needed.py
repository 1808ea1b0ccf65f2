"""Programs that the tests of the lab start on the operator's machine: installed while there is a way out."""

from __future__ import annotations

from deploy import tools

BROWSER = {"chromium": "chromium", "certutil": "libnss3-tools"}
# command: Debian's package, as `tools.ensure` takes it
PROGRAMS = {**tools.TOOLS, **tools.COMPILER, **BROWSER, "debsecan": "debsecan"}
