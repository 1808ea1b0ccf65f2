"""Alerts: what of the gateway's own numbers somebody should be told of; that it is told once, and that it arrives.

`rules` say what is wrong, by the collector's readings; `book` remembers what was told and what waits to be; `ways` are
how it gets out.
"""
