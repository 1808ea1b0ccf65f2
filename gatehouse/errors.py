"""The one base of every error that an operator may see."""


class GatehouseError(Exception):
    """Something is wrong that the operator can mend; `str(error)` says where, what and how, in one line."""
