"""A table as HTML, and the templates that pages are made of; every text is escaped."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .table import MISSING, Table


def environment(*folders: Path) -> Environment:
    """Return templates of some folders, with the macros of tables (``table.html.j2``)."""
    made = Environment(
        loader=FileSystemLoader([Path(__file__).parent / "templates", *folders]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["missing"] = MISSING
    return made


def to_html(table: Table) -> str:
    """Return a ``section`` with the table in it, named by its id."""
    macros: Any = _macros()
    return cast(str, macros.section(table).strip())


@functools.cache
def _macros() -> object:
    return environment().get_template("table.html.j2").module
