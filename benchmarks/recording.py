"""Given to pyinfra after `deploy.py`: writes down the states that its operations stand for, and runs none of them.

`pyinfra --dry -y inventories/lab deploy.py benchmarks/recording.py --data record=FILE` leaves FILE, mode 0600 (it holds
the contents of every file), with `{"states": [{"kind": …}, …], "unknown": [operation, …]}`.
"""

from __future__ import annotations

import json
import os

from pyinfra import host, state

from benchmarks.states import of_operations


def record(path: str) -> None:
    """Writes the states of the host's operations so far."""
    prepared = [state.ops[host][key] for key in state.get_op_order() if key in state.ops[host]]
    states, unknown = of_operations(data.command_generator for data in prepared)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump({"states": states, "unknown": unknown}, file)


record(host.data.record)
