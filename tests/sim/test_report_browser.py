"""The report in a real browser: what a person sees, on a wide screen, a phone, and in the dark."""

import itertools

import pytest

from edgellm import sim
from tests.helpers.browser import CHROMIUM, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")

#: Text whose colour has less than this contrast to what is behind it is hard to read (WCAG 2.2, 1.4.3).
CONTRAST = 4.5

LUMINANCE = """
const channel = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const parts = c => (c.match(/[\\d.]+/g) || []).map(Number);
const light = c => { const [r, g, b] = parts(c);
 return .2126*channel(r) + .7152*channel(g) + .0722*channel(b); };
const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
  const p = parts(c); if (p.length === 3 || p[3] > 0.99) return c; } return 'rgb(255,255,255)'; };
const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
 return (x + .05) / (y + .05); };
"""
WEAK_TEXT = (
    "(() => {"
    + LUMINANCE
    + "return [...document.querySelectorAll('p,li,td,th,h1,h2,h3,a,summary,figcaption,.tag')]"
    ".filter(e => e.offsetParent && e.textContent.trim())"
    ".map(e => [contrast(getComputedStyle(e).color, behind(e)), e.textContent.slice(0, 40)])"
    f".filter(([c]) => c < {CONTRAST});}})()"
)
WEAK_DRAWN_TEXT = (
    "(() => {"
    + LUMINANCE
    + "const page = behind(document.body); return [...document.querySelectorAll('svg text')]"
    ".map(e => [contrast(getComputedStyle(e).fill, page), e.textContent]).filter(([c]) => c < 3);})()"
)
TOO_WIDE = (
    "[...document.querySelectorAll('body *')].filter(e => !e.closest('svg,table') && !e.matches('.skip')"
    " && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)"
    ".map(e => e.tagName + ' ' + e.textContent.slice(0, 40))"
)
DRAWN_OUTSIDE = (
    "[...document.querySelectorAll('svg text')].filter(e => { const a = e.getBoundingClientRect(),"
    " b = e.ownerSVGElement.getBoundingClientRect();"
    " return a.width && (a.left < b.left - 1 || a.right > b.right + 1 || a.bottom > b.bottom + 1); })"
    ".map(e => e.textContent)"
)
CUT_CELLS = (
    "[...document.querySelectorAll('td,th')].filter(e => e.scrollWidth > e.clientWidth + 1)"
    ".map(e => e.textContent.slice(0, 40))"
)


@pytest.fixture(scope="module")
def page(root, tmp_path_factory):
    study = sim.evaluate(
        root / "scenarios" / "field_sensors.toml",
        ["local", "gateway", "cloud"],
        [1],
        quality="off",
        progress=False,
    )
    return study.report(tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_report_shows_without_overflow_errors_or_weak_text(browser, page, width, theme):
    browser.open(page, width=width, theme=theme)
    assert browser.js("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert browser.js(TOO_WIDE) == []
    assert browser.js(WEAK_TEXT) == []
    assert browser.js(WEAK_DRAWN_TEXT) == []
    assert browser.js(DRAWN_OUTSIDE) == []
    assert browser.js(CUT_CELLS) == []
    dark = browser.js("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (theme == "dark")
    assert browser.problems() == []
    assert browser.loaded() == {page.as_uri()}


def test_every_drawing_is_named_and_headings_are_in_order(browser, page):
    browser.open(page)
    drawn = browser.js("[...document.querySelectorAll('svg')].map(e => e.getAttribute('aria-label'))")
    assert len(drawn) >= 8
    assert all(drawn)
    assert browser.js("document.querySelectorAll('svg:not([role=img])').length") == 0
    levels = browser.js("[...document.querySelectorAll('h1,h2,h3')].map(e => Number(e.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = browser.js("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    links = browser.js("[...document.querySelectorAll('a')].map(e => e.getAttribute('href').slice(1))")
    assert set(links) <= set(ids)


def test_report_is_read_with_the_keyboard_alone(browser, page):
    browser.open(page)
    browser.key("Tab", 9)
    assert browser.js("document.activeElement.className") == "skip"
    browser.key("Enter", 13)
    assert browser.js("location.hash") == "#results"
    browser.js("document.querySelector('details:not([open]) summary').focus()")
    browser.key("Enter", 13)
    assert browser.js("document.activeElement.parentElement.open") is True
    assert browser.js("[...document.querySelectorAll('.scroll')].every(e => e.tabIndex === 0)")


def test_fleet_of_hundreds_is_a_few_boxes_and_what_is_infeasible_says_why(browser, page):
    browser.open(page)
    text = browser.js("document.querySelector('#fleet').parentElement.querySelector('svg').textContent")
    for wanted in ("field × 60", "near × 2", "120 links, one medium per site", "4G LTE", "cloud"):
        assert wanted in text
    boxes = browser.js("document.querySelector('#fleet').parentElement.querySelectorAll('svg rect').length")
    assert boxes == 6  # two sites, four kinds of nodes
    why = browser.js("document.querySelector('#infeasible').parentElement.innerText")
    assert "bytes over lora-sf7 are 3 frames and 73.9 s at 1 % duty, more than 60 s" in why
    assert "esp32-s3 has" in why
    shown = browser.js("document.querySelectorAll('#timelines ~ figure svg rect').length")
    assert shown > 10
