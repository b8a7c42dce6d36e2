"""How a report is written: its style sheet, tables, and what makes a drawing readable to everybody.

Colours are custom properties of the style sheet, so that a drawing follows the reader's light or dark theme.
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from html import escape
from typing import Any

from edgellm.sim.report.text import number

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1c2733;--muted:#5c6b7a;--line:#e3e8ed;--rule:#b8c2cc;
 --soft:#f6f8fa;--accent:#0072B2;--good:#00654a;--blue:#0072B2;--brown:#7A5C00;--grey:#444;--bad:#fbeceb;--badink:#b3261e;
 --warn:#fdf0d5;--warnink:#7a4b00;--note:#eaf2f8;--noteink:#00507d}
@media (prefers-color-scheme:dark){:root{--paper:#12181f;--ink:#e4eaf0;--muted:#a3b1bf;--line:#2a3540;
 --rule:#55636f;--soft:#1a222b;--accent:#6db8ec;--good:#4fd1a5;--blue:#4aa3df;--brown:#c9a24a;--grey:#a9b4bf;--bad:#3a1f1e;
 --badink:#ff9d95;--warn:#3a2d12;--warnink:#f2c879;--note:#17303f;--noteink:#9ad0f5}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
 font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1200px;margin:0 auto;padding:40px 28px 80px}
.skip{position:absolute;left:-999px}.skip:focus{left:8px;top:8px;background:var(--paper);padding:6px 12px}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 6px}
h2{font-size:1.25rem;margin:46px 0 10px;padding-top:14px;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:22px 0 0}
p{max-width:78ch}.lead{color:var(--muted);margin:0 0 22px}
nav{font-size:.88rem;margin:0 0 8px;line-height:2}nav a{margin-right:14px;white-space:nowrap}
a{color:var(--accent)}
ul.findings{background:var(--soft);border-left:4px solid var(--accent);margin:20px 0;
 padding:14px 20px 14px 36px}
ul.findings li{margin:4px 0}
.scroll{overflow-x:auto;margin:12px 0}
table{border-collapse:collapse;font-size:.84rem;font-variant-numeric:tabular-nums}
th,td{padding:5px 8px;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
th{font-weight:600;color:var(--muted);vertical-align:bottom;border-bottom:1.5px solid var(--rule)}
th small{display:block;font-weight:400}
td.n,th.n{text-align:right;white-space:nowrap}
td:first-child{min-width:8em;max-width:20em}.one,td:first-child .tag,td code{white-space:nowrap}
b.best{color:var(--good)}
.long{display:block;min-width:34ch}
.ci{color:var(--muted);font-size:.88em}.ci.row{display:block;line-height:1.2}
.tag{display:inline-block;border-radius:9px;padding:0 8px;margin:1px 0;font-size:.76rem;line-height:1.5}
.guess{background:var(--warn);color:var(--warnink)}.plain{background:var(--note);color:var(--noteink)}
.warn{background:var(--bad);color:var(--badink)}
figure{margin:20px 0 6px}figure svg{width:100%;max-width:960px;height:auto;display:block}
figure .wide{overflow-x:auto}
figcaption{color:var(--muted);font-size:.88rem;max-width:84ch}
svg text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:var(--ink)}
svg text.muted{fill:var(--muted)}
.key{display:flex;flex-wrap:wrap;gap:4px 16px;list-style:none;padding:0;margin:12px 0;font-size:.88rem}
.key i{display:inline-block;width:14px;height:11px;border-radius:2px;margin-right:6px}
.banner{background:var(--bad);border-left:4px solid var(--badink);padding:10px 16px;margin:16px 0;
 max-width:84ch}
details{margin:10px 0}summary{cursor:pointer;color:var(--accent)}
code{font-family:ui-monospace,"DejaVu Sans Mono",monospace;font-size:.86em;overflow-wrap:anywhere}
@media (max-width:640px){main{padding:20px 14px 60px}h1{font-size:1.5rem}
 figure .wide svg{min-width:620px}}
@media print{main{max-width:none;padding:0}h2{break-after:avoid}figure,tr{break-inside:avoid}
 .scroll{overflow:visible}}
"""

#: Colours of matplotlib's figures -> custom properties.
_THEME = {
    "#1c2733": "--ink", "#5c6b7a": "--muted", "#e3e8ed": "--line", "#b8c2cc": "--rule", "#9aa7b4": "--rule",
    "#ffffff": "--paper", "#fbeceb": "--bad", "#b3261e": "--badink", "#0072b2": "--blue",
    "#7a5c00": "--brown", "#444444": "--grey",
}  # fmt: skip
_COLOR = re.compile("|".join(_THEME), re.IGNORECASE)

Column = tuple[str, str, Callable[[Any], str], bool]  # head, unit, escaped cell of a record, flush right


def themed(svg: str, name: str, title: str) -> str:
    """Return an SVG of matplotlib with the page's colours, ids of its own, and a title for readers of text.

    Examples
    --------
    >>> themed('<svg id="a" style="fill: #ffffff" clip-path="url(#a)"/>', "f1", "J & s")
    '<svg role="img" aria-label="J &amp; s" id="f1-a" style="fill: var(--paper)" clip-path="url(#f1-a)"/>'
    """
    svg = _COLOR.sub(lambda found: f"var({_THEME[found[0].lower()]})", svg)
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\1{name}-", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)


def drawing(width: float, height: float, content: str, title: str, text: str = "") -> str:
    """Return an SVG of our own: `content` drawn, `title` and `text` for who cannot see it."""
    said = f"<title>{escape(title)}</title>" + (f"<desc>{escape(text)}</desc>" if text else "")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'style="max-width:{width:.0f}px" role="img" aria-label="{escape(title)}">{said}{content}</svg>'
    )


def figure(svg: str, caption: str, wide: bool = False) -> str:
    """Return a figure with a caption that is escaped here; a wide one scrolls on a narrow screen."""
    inner = (
        f'<div class="wide" tabindex="0" role="group" aria-label="drawing, scrolls">{svg}</div>'
        if wide
        else svg
    )
    return f"<figure>{inner}<figcaption>{escape(caption)}</figcaption></figure>"


def html_table(
    heads: Sequence[tuple[str, str]],
    rows: Iterable[Sequence[str]],
    numeric: Collection[int] = (),
    name: str = "table",
) -> str:
    """Return an HTML table from cells that are already escaped.

    Parameters
    ----------
    heads : sequence of (title, unit)
    rows : iterable of sequences of str
    numeric : collection of int
        Columns set flush right.
    name : str
        What it is called for who cannot see it.
    """

    def cell(tag: str, i: int, content: str) -> str:
        scope = ' scope="col"' if tag == "th" else ""
        right = ' class="n"' if i in numeric else ""
        return f"<{tag}{scope}{right}>{content}</{tag}>"

    top = "".join(
        cell("th", i, escape(h) + (f"<small>{escape(u)}</small>" if u else ""))
        for i, (h, u) in enumerate(heads)
    )
    body = "".join("<tr>" + "".join(cell("td", i, c) for i, c in enumerate(row)) + "</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">'
        f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def record_table(records: Iterable[Any], columns: Sequence[Column], name: str = "table") -> str:
    """Return an HTML table with one row per record."""
    rows = [[cell(record) for _, _, cell, _ in columns] for record in records]
    right = {i for i, column in enumerate(columns) if column[3]}
    return html_table([(head, unit) for head, unit, _, _ in columns], rows, right, name)


def text_of(key: str) -> Callable[[Any], str]:
    """Return what writes the text of a record's entry, a dash where it is empty."""
    return lambda record: escape(str(record[key]) or "–")


def long_text_of(key: str) -> Callable[[Any], str]:
    """Return what writes a text of several words, which keeps its width on a narrow screen."""
    return lambda record: f'<span class="long">{escape(str(record[key]) or "–")}</span>'


def count_of(key: str) -> Callable[[Any], str]:
    """Return what writes a record's entry as a whole number."""
    return lambda record: f"{record[key]:,.0f}"


def amount_of(key: str, scale: float = 1.0, digits: int = 3) -> Callable[[Any], str]:
    """Return what writes a record's entry, scaled, as a number for people."""
    return lambda record: number(record[key] * scale, digits)


def details(summary: str, content: str, shown: bool = False) -> str:
    """Return content that a click folds and unfolds."""
    return f"<details{' open' if shown else ''}><summary>{escape(summary)}</summary>{content}</details>"


def tag(text: str, kind: str = "plain") -> str:
    """Return a short text as a label: "plain", "guess" or "warn"."""
    return f'<span class="tag {kind}">{escape(text)}</span>' if text else ""
