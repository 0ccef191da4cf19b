"""The frame of a report's pages: no script, no font, nothing fetched; readable on a phone."""

from __future__ import annotations

from collections.abc import Sequence

from ..tables.render import escape_html

MARK = '<meta name="generator" content="mpt report">'
"""Stands in every page of a report, and so tells ours from others."""
_STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 0 auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
h2.part { font-size: 1.35rem; border-top: 2px solid var(--line); padding-top: .75rem; }
nav a { margin-right: .75rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; }
th, td { border: 1px solid var(--line); padding: .25rem .5rem; text-align: left;
         vertical-align: top; overflow-wrap: break-word; max-width: 40rem; }
th { background: var(--soft); }
td.number { white-space: nowrap; font-variant-numeric: tabular-nums; }
td.missing { opacity: .5; }
td small { display: block; opacity: .75; }
.notes, figcaption { font-size: .85rem; }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; background: #fff; }
summary { cursor: pointer; }
"""


def page(title: str, body: Sequence[str]) -> str:
    """Return a whole HTML page.

    Args:
        title: plain text.
        body: pieces of HTML; whoever made them has escaped what is in them.
    """
    name = escape_html(title)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{MARK}\n"
        # a page that tries to fetch or run something is stopped by the browser
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; img-src 'self' file: data:\">\n"
        f"<title>{name}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{name}</h1>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def heading(content: str, anchor: str) -> str:
    """Return plain text as the heading of a section of several tables."""
    return f'<h2 id="{escape_html(anchor)}" class="part">{escape_html(content)}</h2>'


def paragraph(content: str) -> str:
    """Return plain text as a paragraph."""
    return f"<p>{escape_html(content)}</p>"


def bullets(lines: Sequence[str]) -> str:
    """Return lines of plain text as a list; nothing if there is none."""
    if not lines:
        return ""
    return "<ul>" + "".join(f"<li>{escape_html(line)}</li>" for line in lines) + "</ul>"


def navigation(entries: Sequence[tuple[str, str]]) -> str:
    """Return links (address, text) to the sections of a page."""
    links = (f'<a href="{escape_html(to)}">{escape_html(text)}</a>' for to, text in entries)
    return f"<nav>{' '.join(links)}</nav>"


def picture(address: str, title: str, caption: str) -> str:
    """Return a figure with its caption."""
    return (
        f'<figure><img src="{escape_html(address)}" alt="{escape_html(title)}" loading="lazy">'
        f"<figcaption><b>{escape_html(title)}</b> {escape_html(caption)}</figcaption></figure>"
    )
