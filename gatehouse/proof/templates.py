"""What the pages of the proof are made with: templates beside this file, in which nothing that is put in is markup."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    undefined=StrictUndefined,
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
SIGNS = {"proven": "✓", "failed": "✗", "not_proven": "?", "waived": "!", "out_of_reach": "–"}
SIGNS |= {"fine": "✓", "soon": "!", "over": "✗"}
"""What stands before the word, so that no verdict is told by its colour alone."""
