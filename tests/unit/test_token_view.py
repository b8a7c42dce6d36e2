"""Tokens with probabilities: in notebooks, and on the page that the server shows."""

import html.parser
import re

import pytest

from edgellm import _token_view
from edgellm._token_view import BOUNDS, COLOURS, shade, tokens_html, visible
from edgellm.generation import TokenLogprob

HOSTILE = "<script>alert(1)</script>\"' onload=x &amp; \u202e\x1b[31m \n<img src=//x>"


@pytest.fixture(scope="module")
def page(root) -> str:
    return (root / "edgellm" / "server" / "page.html").read_text(encoding="utf-8")


class Tags(html.parser.HTMLParser):
    """Every tag with its attributes, and the text between."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def parsed(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    return tags


def test_shades_grow_as_probabilities_fall():
    shades = [shade(p) for p in (1.0, 0.9, 0.8, 0.6, 0.3, 0.2, 0.05, 0.02, 0.001, float("nan"))]
    assert shades == [0, 0, 1, 2, 3, 4, 5, 6, 7, 7]
    assert len(COLOURS) == len(BOUNDS) + 1


def test_hostile_text_stays_text_in_a_notebook():
    token = TokenLogprob(1, HOSTILE, -5.0, (TokenLogprob(2, HOSTILE, -0.1), TokenLogprob(1, HOSTILE, -5.0)))
    tags = parsed(tokens_html([token], note=HOSTILE))
    assert {tag for tag, _ in tags.tags} == {"div", "span"}
    assert {name for _, attributes in tags.tags for name in attributes} == {"style", "title"}
    assert all("url" not in (attributes.get("style") or "") for _, attributes in tags.tags)
    assert "<script>alert(1)</script>" in tags.text
    shown = tags.text.removesuffix(HOSTILE)
    assert "\u202e" not in shown
    assert "\x1b" not in shown


def test_alternatives_are_in_the_title_with_the_chosen_one():
    token = TokenLogprob(1, " a", -0.7, (TokenLogprob(2, "\n", -0.9),))
    (title,) = [a["title"] for _, a in parsed(tokens_html([token])).tags if "title" in a]
    assert title.splitlines() == ["␣a: 49.7 %", "⏎: 40.7 %"]
    assert visible("\u200b") == "U+200B"


def test_page_has_the_colours_of_notebooks(page):
    assert [float(x) for x in re.search(r"BOUNDS = \[(.*?)\]", page)[1].split(",")] == list(BOUNDS)
    light = re.search(r":root \{(.*?)\}", page, re.DOTALL)[1]
    assert tuple(re.findall(r"--p\d: (.*?);", light)) == COLOURS
    assert _token_view.COLOURS == COLOURS


def luminance(colour: str) -> float:
    """Relative luminance. Source: WCAG 2.2, "relative luminance"."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [":root {", ':root[data-theme="dark"] {'])
def test_text_of_the_page_can_be_read_on_every_colour(page, theme):
    """A contrast of 4.5 as WCAG 2.2 asks (level AA) in both themes."""
    names = dict(re.findall(r"--([\w-]+): (#\w{6});", page[page.index(theme) :].split("}")[0]))
    for background in ("page", "card", "user", *(f"p{i}" for i in range(1, 8))):
        assert contrast(names["text"], names[background]) >= 4.5, background
    for background in ("page", "card"):
        for text in ("soft", "bad", "accent"):
            assert contrast(names[text], names[background]) >= 4.5, (text, background)
    assert contrast(names["on-accent"], names["accent"]) >= 4.5


def test_dark_theme_is_the_same_chosen_or_preferred(page):
    chosen = re.search(r':root\[data-theme="dark"\] \{(.*?)\}', page, re.DOTALL)[1]
    preferred = re.search(r':root:not\(\[data-theme="light"\]\) \{(.*?)\}', page, re.DOTALL)[1]
    assert chosen.split("color-scheme: dark;")[1].split() == preferred.split()


def test_page_is_one_file_that_makes_no_markup_of_text(page):
    tags = parsed(page)
    for tag, attributes in tags.tags:
        assert tag not in {"iframe", "object", "embed", "base", "form[action]"}
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
        for name in ("src", "href", "action", "srcset"):
            assert attributes.get(name, "data:,") == "data:,", (tag, attributes)
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL)[1]
    for way in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "new Function", "://"):
        assert way not in script.replace("http://www.w3.org/2000/svg", ""), way
    assert not re.search(r"url\(|@import", re.search(r"<style>(.*)</style>", page, re.DOTALL)[1])


def test_everything_on_the_page_that_can_be_used_has_a_name(page):
    labelled = set(re.findall(r'<label[^>]*for="(\w+)"', page))
    for control in re.findall(r"<(?:input|select|textarea)[^>]*>", page):
        name = re.search(r'id="(\w+)"', control)[1]
        inside = re.search(rf'<label[^>]*>(?:(?!</label>).)*id="{name}"', page, re.DOTALL)
        assert inside or name in labelled, name
    for attributes, content in re.findall(r"<button([^>]*)>(.*?)</button>", page):
        assert re.search(r"[A-Za-z]", content) or "aria-label" in attributes
    assert 'lang="en"' in page
    assert "width=device-width" in page
