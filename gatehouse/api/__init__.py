"""A gateway's small read-only device API. It runs there, on Debian's Python and Debian's packages alone."""
