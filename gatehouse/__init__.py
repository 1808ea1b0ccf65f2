"""Gatehouse: turns a Debian machine into a hardened gateway between IoT devices and everything else, and proves it."""

__version__ = "0.1.0"
