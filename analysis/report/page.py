"""The frame of a report's pages: one file, nothing fetched, nothing run but what is hashed."""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plotly
from markupsafe import Markup

from ..tables.render import environment

TITLE = "Learning to initialise prompts: results"
MARK = '<meta name="generator" content="mpt report">'
"""Stands in every page of a report, and so tells ours from others."""
_FOLDER = Path(__file__).parent / "templates"
_ENVIRONMENT = environment(_FOLDER)
_STYLED = re.compile(r'getElementById\("([0-9a-f]{64})"\)')
"""How the library asks whether the style of its maps, which no report has, is on the page."""


def render(
    template: str, title: str, plots: Mapping[str, Any] | None = None, **values: Any
) -> str:
    """Return a whole HTML page.

    Args:
        template: name of the file.
        title: plain text.
        plots: name → data and layout of the interactive figures; None or empty: there are none.
        **values: of the template; plain text is escaped.
    """
    style = _read("report.css")
    scripts = {"sorting": _read("tables.js")}
    allowed = list(scripts.values())
    if plots:
        scripts["drawing"] = _read("plots.js")
        allowed += [scripts["drawing"], library()]
    return _ENVIRONMENT.get_template(template).render(
        title=title,
        mark=Markup(MARK + _placeholders() if plots else MARK),
        policy=Markup(policy(allowed, style)),
        style=Markup(style),
        scripts={name: Markup(script) for name, script in scripts.items()},
        plots=Markup(_embedded(plots)) if plots else "",
        library=Markup(_packed()) if plots else "",
        **values,
    )


def policy(scripts: list[str], style: str) -> str:
    """Return the content-security policy: only these texts run, only this sheet styles.

    The library makes an empty sheet of its own and sets styles of single elements; the latter are
    no way to run anything.
    """
    run = " ".join(map(_hash, scripts))
    return (
        f"default-src 'none'; script-src {run}; style-src-elem {_hash(style)} {_hash('')}; "
        "style-src-attr 'unsafe-inline'; img-src 'self' file: data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


@functools.cache
def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


@functools.cache
def library() -> str:
    """Return Plotly's program as its package has it."""
    path = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    return path.read_text(encoding="utf-8")


@functools.cache
def _packed() -> str:
    """Return the library compressed (4.8 MB become 2 MB), the same bytes on every call."""
    return base64.b64encode(gzip.compress(library().encode(), 9, mtime=0)).decode()


@functools.cache
def _placeholders() -> str:
    """Return elements that keep the library from adding a style sheet that is not needed."""
    return "".join(f'<meta id="{name}">' for name in sorted(set(_STYLED.findall(library()))))


def _embedded(plots: Mapping[str, Any]) -> str:
    """Return JSON that cannot end its element."""
    text = json.dumps(plots, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")
