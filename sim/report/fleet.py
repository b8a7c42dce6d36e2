"""The fleet drawn: one box for each kind of node, however many there are, and the links that join them."""

import textwrap
from html import escape
from typing import Any

from edgellm.sim.report.markup import drawing

_WIDTH, _LINE, _GAP_X, _GAP_Y, _PAD, _HEAD = 240.0, 15.0, 28.0, 74.0, 14.0, 26.0
#: More kinds of site than this are not drawn.
MAX_SITES = 12

Kind = dict[str, Any]


def _name(kind: Kind) -> str:
    return f"{kind['site']}/{kind['key']}"


def _levels(kinds: list[Kind]) -> dict[str, int]:
    """Return how many uplinks above each kind of node the root of its tree is."""
    above = {_name(kind): kind["to"] for kind in kinds}
    out: dict[str, int] = {}
    for name in above:
        chain = [name]
        while above.get(chain[-1]) and chain[-1] not in out and len(chain) <= len(above):
            chain.append(above[chain[-1]])
        base = out.get(chain[-1], 0)
        for steps, one in enumerate(reversed(chain)):
            out[one] = base + steps
    return out


def _lines(kind: Kind) -> list[tuple[str, str]]:
    """Return (text, class) of the lines in a node's box."""
    per_site = kind["nodes"] / max(kind["sites"], 1)
    many = f" × {per_site:g}" if per_site != 1 else ""
    role = "" if kind["role"] == kind["key"] else f" ({kind['role']})"
    lines = [(f"{kind['key']}{many}{role}", "name")]
    total = sum(kind["devices"].values())
    shown = sorted(kind["devices"].items(), key=lambda item: -item[1])
    for title, count in shown[:4]:
        share = "" if len(shown) == 1 else f"{100 * count / total:.0f} % "
        lines.append((textwrap.shorten(share + title, 34, placeholder="…"), ""))
    if len(shown) > 4:
        lines.append((f"and {len(shown) - 4} more devices", "muted"))
    if kind["models"]:
        more = f" + {len(kind['models']) - 1}" if len(kind["models"]) > 1 else ""
        lines.append((textwrap.shorten(kind["models"][0], 30, placeholder="…") + more, "muted"))
    return lines


def _height(kind: Kind) -> float:
    return len(_lines(kind)) * _LINE + 14


def sentences(kinds: list[Kind]) -> str:
    """Return the fleet in words."""
    said = []
    for kind in kinds:
        devices = " or ".join(kind["devices"])
        up = f", over {kind['link_title']} to {kind['to']}" if kind["to"] else ""
        said.append(f"{kind['nodes']:,} × {_name(kind)}: {devices}{up}.")
    return " ".join(said)


def draw(kinds: list[Kind]) -> str:
    """Return an SVG of a fleet.

    Parameters
    ----------
    kinds : list of dict
        What `Fleet.kinds()` returns; the first `MAX_SITES` kinds of site are drawn.
    """
    sites = list(dict.fromkeys(kind["site"] for kind in kinds))[:MAX_SITES]
    kinds = [kind for kind in kinds if kind["site"] in sites]
    levels = _levels(kinds)
    rows: dict[int, list[str]] = {}
    for site in sites:
        rows.setdefault(min(levels[_name(k)] for k in kinds if k["site"] == site), []).append(site)
    boxes: dict[str, tuple[float, float, float]] = {}  # kind -> left, top, height
    frames: list[tuple[str, float, float, float, float]] = []
    top, width = 8.0, 0.0
    for level in sorted(rows):
        left, low = 8.0, top
        for site in rows[level]:
            right, bottom = _place_site([k for k in kinds if k["site"] == site], levels, left, top, boxes)
            frames.append((site, left, top, right, bottom))
            left, low = right + _GAP_X, max(low, bottom)
        width, top = max(width, left - _GAP_X + 8), low + _GAP_Y
    height = top - _GAP_Y + 8
    tops = {site: y for site, _, y, _, _ in frames}
    links = [_link(kind, boxes, tops) for kind in kinds if kind["to"] in boxes]
    parts = [_frame(frame, kinds) for frame in frames]
    parts += [line for line, _ in links]
    parts += [_box(kind, *boxes[_name(kind)]) for kind in kinds]
    parts += [label for _, label in links]
    width = max(width, max((boxes[_name(k)][0] for k in kinds), default=0.0) + _WIDTH + 150)
    return drawing(
        width, height, "".join(parts), "The fleet: kinds of sites, nodes and links", sentences(kinds)
    )


def _place_site(
    kinds: list[Kind],
    levels: dict[str, int],
    left: float,
    top: float,
    boxes: dict[str, tuple[float, float, float]],
) -> tuple[float, float]:
    """Put the boxes of one site, the upper nodes above; returns its right and bottom edge."""
    by_level: dict[int, list[Kind]] = {}
    for kind in kinds:
        by_level.setdefault(levels[_name(kind)], []).append(kind)
    y, right = top + _HEAD, left
    for level in sorted(by_level):
        x = left + _PAD
        for kind in by_level[level]:
            boxes[_name(kind)] = (x, y, _height(kind))
            x += _WIDTH + _GAP_X
        right = max(right, x - _GAP_X + _PAD)
        y += max(_height(kind) for kind in by_level[level]) + _GAP_Y * 0.8
    return right, y - _GAP_Y * 0.8 + _PAD


def _frame(frame: tuple[str, float, float, float, float], kinds: list[Kind]) -> str:
    site, left, top, right, bottom = frame
    count = max(kind["sites"] for kind in kinds if kind["site"] == site)
    many = f" × {count:,}" if count > 1 else ""
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" rx="10" '
        'style="fill:var(--soft);stroke:var(--rule)"/>'
        f'<text x="{left + 12:.1f}" y="{top + 18:.1f}" font-size="13" font-weight="600">'
        f"{escape(site + many)}</text>"
    )


def _box(kind: Kind, x: float, y: float, height: float) -> str:
    out = (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{_WIDTH:.0f}" height="{height:.1f}" rx="6" '
        'style="fill:var(--paper);stroke:var(--accent)"/>'
    )
    for i, (text, look) in enumerate(_lines(kind)):
        style = ' font-weight="600"' if look == "name" else ""
        muted = ' class="muted"' if look == "muted" else ""
        place = f'x="{x + 10:.1f}" y="{y + 18 + i * _LINE:.1f}"'
        out += f'<text {place} font-size="11.5"{style}{muted}>{escape(text)}</text>'
    return out


def _link(
    kind: Kind, boxes: dict[str, tuple[float, float, float]], tops: dict[str, float]
) -> tuple[str, str]:
    """Return the line from a kind of node to the one above, and its label."""
    x, y, _ = boxes[_name(kind)]
    up_x, up_y, up_height = boxes[kind["to"]]
    start, end = (x + _WIDTH / 2, y), (up_x + _WIDTH / 2, up_y + up_height)
    if end[1] > start[1]:  # side by side
        start, end = (x + _WIDTH, y + 20), (up_x, up_y + 20)
    bend = end[1] + 12 if start[1] > end[1] else end[1]  # above the labels of its neighbours
    line = (
        f'<path d="M{start[0]:.1f},{start[1]:.1f}V{bend:.1f}H{end[0]:.1f}V{end[1]:.1f}" '
        'style="fill:none;stroke:var(--muted);stroke-width:1.6"/>'
    )
    inside = kind["to"].startswith(f"{kind['site']}/")
    y = start[1] if inside else tops[kind["site"]]
    halo = f"paint-order:stroke;stroke-width:4px;stroke:var({'--soft' if inside else '--paper'})"
    medium = ", one medium per site" if kind["shared"] else ""
    label = (
        f'<text x="{start[0] + 8:.1f}" y="{y - 22:.1f}" font-size="11" style="{halo}">'
        f"{escape(textwrap.shorten(kind['link_title'], 37, placeholder='…'))}</text>"
        f'<text x="{start[0] + 8:.1f}" y="{y - 8:.1f}" font-size="11" class="muted" '
        f'style="{halo}">'
        f"{kind['nodes']:,} link{'s' if kind['nodes'] > 1 else ''}{medium}</text>"
    )
    return line, label
