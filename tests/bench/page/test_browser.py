"""The page in a headless Chromium: sort, filter, evidence, curves, themes, a phone, and nothing that leaves it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.diagnostics.suite import SUITE
from bench.page.build import build_page
from bench.page.data import page_data
from tests.bench.page.browser import Tab, find_browser, open_browser
from tests.bench.page.made_up import HOSTILE, made_up_store

pytestmark = pytest.mark.skipif(find_browser() is None, reason="no chromium, google-chrome or chrome is installed")

ROWS = "[...document.querySelectorAll('#table tbody tr')]"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("page")
    path = folder / "report.html"
    path.write_text(build_page(page_data(made_up_store(folder / "store"), Path("nowhere"))), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with open_browser(tmp_path_factory.mktemp("browser")) as tab:
        yield tab


@pytest.fixture
def tab(browser: Tab, page: str) -> Iterator[Tab]:
    """The page, freshly opened; whatever a test does, nothing complains and nothing else is asked for."""
    browser.open(page)
    yield browser
    assert browser.complaints() == []
    assert browser.requests() == [page]
    assert browser.run("window.hacked") is None


def test_the_policy_stops_what_the_page_does_not_do(browser: Tab, page: str) -> None:
    """And the driver hears of it: the other tests could fail."""
    browser.open(page)
    browser.run("fetch('http://127.0.0.1:9/').catch(() => 0)")
    browser.run(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    )
    complaints = browser.complaints()
    assert any("connect-src" in line or "default-src" in line for line in complaints)
    assert any("script-src" in line for line in complaints) and browser.run("window.ran") is None


def column(tab: Tab, name: str) -> list[str]:
    return tab.run(f"{ROWS}.map(r => r.querySelector('td.{name}').firstChild.textContent)")


def sorting(tab: Tab) -> dict[str, str]:
    heads = "[...document.querySelectorAll('#table th')].map(h => [h.textContent, h.getAttribute('aria-sort')])"
    return {name: how for name, how in tab.run(heads) if how != "none"}


def choose(tab: Tab, name: str, value: str) -> None:
    select = f"document.getElementById('filter-{name}')"
    tab.run(f"{select}.value = '{value}'; {select}.dispatchEvent(new Event('change'))")


def focus(tab: Tab, selector: str) -> None:
    tab.run(f"document.querySelector({selector!r}).focus()")


def test_all_rows_best_first(tab: Tab) -> None:
    numbers = [float(text) for text in column(tab, "robust")]
    assert len(numbers) == 13 and numbers[:-1] == sorted(numbers[:-1], reverse=True)
    assert column(tab, "attack")[-1] == "PGD (control)" and numbers[-1] == max(numbers), "no measure, so never first"
    assert sorting(tab) == {"Robust": "descending"}
    assert HOSTILE in column(tab, "model"), "a hostile name is text"


def test_sorting_by_mouse_and_by_keyboard(tab: Tab) -> None:
    tab.run("document.querySelector('#column-eps button').click()")
    assert sorting(tab) == {"ε": "descending"} and column(tab, "eps")[0] == "8/255"
    focus(tab, "#column-eps button")
    tab.press("Enter")
    assert sorting(tab) == {"ε": "ascending"} and column(tab, "eps")[0] == "2/255"
    focus(tab, "#column-paper button")
    tab.press("Space")
    paper = column(tab, "paper")
    there = [float(text) for text in paper[:-1] if text != "—"]
    assert there == sorted(there, reverse=True) and paper[: len(there)] == [f"{x:.2f}" for x in there]
    tab.press("Space")
    assert column(tab, "paper")[-2] == "—", "what is absent comes last in both orders, but for the control"


def test_filters_narrow_each_other(tab: Tab) -> None:
    choose(tab, "dataset", "mnist")
    assert set(column(tab, "dataset")) == {"mnist"} and len(column(tab, "model")) == 10
    choose(tab, "protocol", "paper")
    choose(tab, "eps", "4/255")
    assert column(tab, "attack") == ["I-FGSM", "PGD"] and column(tab, "eps") == ["4/255"] * 2
    assert "2 of 13 rows" in tab.run("document.getElementById('shown').textContent")
    choose(tab, "recipe", "unknown")
    assert column(tab, "model") == []
    for name in ("dataset", "protocol", "eps", "recipe"):
        choose(tab, name, "")
    words = "document.getElementById('filter-words')"
    tab.run(f"{words}.value = 'ONERROR'; {words}.dispatchEvent(new Event('input'))")
    assert column(tab, "model") == [HOSTILE] * 3
    options = tab.run("[...document.getElementById('filter-eps').options].map(o => o.value)")
    assert options == ["", "2/255", "4/255", "8/255"], "radii in the order of their size"


def test_evidence_opens_on_click_and_closes_by_escape(tab: Tab) -> None:
    choose(tab, "protocol", "paper")
    choose(tab, "dataset", "mnist")
    button = "document.querySelector('td.verdict button')"
    assert "masking (WARN)n = 100" in tab.run(f"{button}.textContent")
    assert "masking (WARN), n = 100" in tab.run(f"{button}.getAttribute('aria-label')")
    focus(tab, "td.verdict button")
    tab.press("Enter")
    assert tab.run("document.getElementById('details').open")
    text = tab.run("document.getElementById('details-body').textContent")
    assert "gradient: Some gradients are zero." in text and HOSTILE in text and "95 % interval [0.0100, 0.0500]" in text
    assert "The paper printed 50.24 %" in text and "outside our interval" in text
    folders = tab.run("[...document.querySelectorAll('#details summary')].map(s => s.textContent)")
    assert [name.split(":")[0] for name in folders] == ["robust accuracy", *["worst case"] * 3, "certified"]
    assert "Worst case 80.00 %" in text and "all 3 cells listed below" in text
    manifest, key = tab.run(
        "[...document.querySelectorAll('#details pre')].slice(0, 2).map(p => JSON.parse(p.textContent))"
    )
    assert manifest["shards"] == 2 and "packages" in manifest["environment"], "whole, shared pieces put back"
    assert key["attack"]["name"] == "ifgsm" and key["eps"] == "2/255"
    tab.press("Escape")
    tab.wait("!document.getElementById('details').open")
    assert tab.run(f"document.activeElement === {button}"), "the focus goes back to where it came from"


def test_what_was_not_evaluated_says_so(tab: Tab) -> None:
    choose(tab, "dataset", "digits")
    for name in ("worst", "certified", "verdict"):
        assert [text.removesuffix("details") for text in column(tab, name)] == ["not evaluated"] * 3
    tab.run("document.querySelector('td.verdict button').click()")
    assert "holds no diagnostics" in tab.run("document.getElementById('details-body').textContent")


def test_part_of_the_suite_has_no_level(tab: Tab) -> None:
    choose(tab, "protocol", "adaptive")
    button = "document.querySelector('td.verdict button')"
    assert tab.run(f"{button}.textContent") == f"partly diagnosed (2 of {len(SUITE)})n = 30details"
    assert tab.run(f"{button}.className") == ""
    tab.run(f"{button}.click()")
    text = tab.run("document.getElementById('details-body').textContent")
    assert (
        f"Only 2 of {len(SUITE)} diagnostics were run" in text and "noise: Nothing." in text and "Gravest" not in text
    )


def test_curves_tell_their_values(tab: Tab) -> None:
    choose(tab, "dataset", "digits")
    assert tab.run("document.querySelectorAll('#chart .curve').length") == 1
    focus(tab, "#chart svg")
    tab.press("ArrowRight")
    assert "no attack: 96.67 %" in tab.run("document.getElementById('tip').textContent")
    tab.press("ArrowRight")
    assert "ε = 2/255: 33.33 % [" in tab.run("document.getElementById('tip').textContent")
    tab.run("document.querySelector('#chart').scrollIntoView()")
    box = "document.querySelector('#chart svg').getBoundingClientRect()"
    right, top = tab.run(f"{box}.right") - 12, tab.run(f"{box}.top")
    low = tab.run("Number(document.querySelector('#chart .curve').getAttribute('d').split(' ').pop())")
    tab.move(right, top + low)
    assert "ε = 8/255: 13.33 %" in tab.run("document.getElementById('tip').textContent")
    tab.run("document.querySelector('#legend button').click()")
    assert tab.run("document.querySelectorAll('#chart .curve').length") == 0
    assert tab.run("document.activeElement.getAttribute('aria-pressed')") == "false"


def test_light_dark_and_the_button_between(browser: Tab, page: str) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    browser.open(page, dark=True)
    dark = browser.run(background)
    assert browser.run("document.getElementById('theme').getAttribute('aria-pressed')") == "true"
    focus(browser, "#theme")
    browser.press("Enter")
    light = browser.run(background)
    assert (dark, light) == ("rgb(20, 23, 28)", "rgb(255, 255, 255)")
    browser.open(page)
    assert browser.run(background) == light
    browser.run("document.getElementById('theme').click()")
    assert browser.run(background) == dark
    assert browser.complaints() == []


def test_a_desk_shows_the_whole_table(tab: Tab) -> None:
    assert tab.run("document.querySelector('.scroll').scrollWidth <= document.querySelector('.scroll').clientWidth")


def test_a_phone_shows_everything_without_scrolling_sideways(browser: Tab, page: str) -> None:
    browser.open(page, width=375, height=800)
    assert browser.run("document.documentElement.scrollWidth") == 375
    widest = f"Math.max(...{ROWS}.map(r => r.getBoundingClientRect().right))"
    assert browser.run(widest) <= 375
    labels = browser.run("[...document.querySelectorAll('#table tbody tr')][0].querySelectorAll('td').length")
    assert labels == 13
    assert browser.run("document.getElementById('sort').offsetParent !== null"), "no headers to press: a list instead"
    browser.run("const s = document.getElementById('sort'); s.value = 'model'; s.dispatchEvent(new Event('change'))")
    assert column(browser, "model")[0] == HOSTILE
    assert browser.complaints() == []
