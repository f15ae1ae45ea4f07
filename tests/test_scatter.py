"""The scatter to look into: what the page is given, and what it does in a browser: tell, hide, enlarge."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfdetr.errors import UserError
from rfdetr.plots.scatter import STAR, STEP, Axis, Layer, Scatter

X, Y = Axis("latency, ms", "ms", digits=2, log=True), Axis("AP", digits=3)
RANDOM = np.random.default_rng(0)
CLOUD = Layer(
    "networks",
    [float("nan"), *RANDOM.uniform(1, 20, 60)],
    [0.5, *RANDOM.uniform(0.2, 0.5, 60)],
    about={"layers": range(61)},
    values=np.arange(61) % 9,
    values_label="tokens a side",
)
FRONT = Layer("front", [30.0, 0.5, 5.0], [0.9, 0.55, 0.7], shape=STEP, about={"": ["c", "a", "b"]})
CHOSEN = Layer("chosen", [5.0], [0.7], shape=STAR, about={"": ["b"], "chosen for": ["5 ms"]})


def data(chart):
    text = re.search(r'<script type="application/json">(.*?)</script>', chart.html("A chart"), re.DOTALL)
    return json.loads(text[1])


def test_missing_values_are_left_out_and_steps_follow_x():
    cloud, front, chosen = data(Scatter([CLOUD, FRONT, CHOSEN], X, Y))["layers"]
    assert len(cloud["x"]) == len(cloud["y"]) == len(cloud["shade"]) == 60
    assert cloud["about"]["layers"][0] == 1
    assert front["x"] == [0.5, 5.0, 30.0] and front["about"][""] == ["a", "b", "c"]
    assert [value for value, _ in cloud["key"]["entries"]] == [0, 2, 3, 5, 6, 8]
    assert len(cloud["shades"]) == 9 and max(cloud["shade"]) == 8
    assert chosen["about"] == {"": ["b"], "chosen for": ["5 ms"]}


@given(st.lists(st.floats(1e-9, 1e6), min_size=1, max_size=20))
def test_no_positive_value_is_rounded_to_zero_nor_far(values):
    layer = Layer("points", values, values)
    made = layer.payload(Axis("x", digits=2, log=True), Axis("y", digits=3))
    for given_value, shown in zip(values, made["x"], strict=True):
        assert shown > 0 and shown == pytest.approx(given_value, abs=6e-4, rel=6e-3)


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    """A browser with a page that has two charts."""
    from rfdetr.book import browser

    try:
        browser.find_browser()
    except UserError as error:
        pytest.skip(str(error))
    path = tmp_path_factory.mktemp("page") / "page.html"
    one = Scatter([CLOUD, FRONT, CHOSEN], X, Y).html("One")
    two = Scatter([CLOUD], X, Y).html("Two")
    path.write_text(f'<!doctype html><body style="margin: 0">{one}{two}', encoding="utf-8")
    with browser.running() as chromium:
        tab = chromium.tab()
        tab.show(900, 1400)
        tab.address = path.as_uri()
        yield tab


CHART = 'document.querySelector(".nas-scatter '
TOLD = CHART + '.told").innerText'
# Where the point that is told about is marked, in the window.
HERE = f"""(() => {{
  const mark = {CHART}circle.here"), frame = {CHART}.chart").getBoundingClientRect();
  return mark && [frame.left + Number(mark.getAttribute("cx")), frame.top + Number(mark.getAttribute("cy"))];
}})()"""


def slide(tab, place):
    tab.run(
        f"""(() => {{ const input = {CHART}input"); input.value = {place};
        input.dispatchEvent(new Event("input", {{bubbles: true}})); }})()"""
    )
    tab.settle()
    return tab.run(HERE)


def mouse(tab, kind, place, button="none"):
    tab.call(
        "Input.dispatchMouseEvent",
        **{"type": kind, "x": place[0], "y": place[1], "button": button, "clickCount": 1},
    )
    tab.settle()


def test_a_slider_walks_along_the_steps_and_tells(tab):
    tab.open(tab.address)
    first, last = slide(tab, 0), slide(tab, 2)
    assert first[0] < last[0] and first[1] > last[1]
    assert tab.run(TOLD) == "front: c, AP 0.900, 30.00 ms"
    assert tab.run(CHART + 'input").getAttribute("aria-valuetext")') == "front: c, AP 0.900, 30.00 ms"


def test_the_point_under_the_mouse_or_the_thumb_is_told_the_uppermost_first(tab):
    tab.open(tab.address)
    middle, end = slide(tab, 1), slide(tab, 2)
    slide(tab, 0)
    mouse(tab, "mouseMoved", [middle[0] + 2, middle[1] - 2])
    assert tab.run(TOLD) == "chosen: b, chosen for 5 ms, AP 0.700, 5.00 ms"
    tab.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": end[0], "y": end[1]}])
    tab.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    tab.settle()
    assert tab.run(TOLD).startswith("front: c")


def test_a_hidden_layer_is_not_told(tab):
    tab.open(tab.address)
    middle = slide(tab, 1)
    slide(tab, 0)
    buttons = "[...document.querySelector('.nas-scatter').querySelectorAll('button')]"
    tab.run(f"{buttons}.find((b) => b.innerText.startsWith('chosen')).click()")
    mouse(tab, "mouseMoved", middle)
    assert tab.run(TOLD).startswith("front: b")
    assert tab.run(f"{buttons}.map((b) => b.getAttribute('aria-pressed'))") == ["true", "true", "false", None]


def test_a_rectangle_is_enlarged_and_shown_whole_again(tab):
    tab.open(tab.address)
    middle = slide(tab, 1)
    mouse(tab, "mousePressed", [middle[0] - 60, middle[1] - 60], "left")
    mouse(tab, "mouseMoved", [middle[0] + 60, middle[1] + 60], "left")
    mouse(tab, "mouseReleased", [middle[0] + 60, middle[1] + 60], "left")
    chart = tab.run(f'(({{left, right}}) => [left, right])({CHART}.chart").getBoundingClientRect())')
    assert slide(tab, 1)[0] == pytest.approx((chart[0] + 52 + chart[1] - 12) / 2, abs=3)
    assert tab.run(CHART + 'button:last-of-type").hidden') is False
    tab.run(CHART + 'button:last-of-type").click()')
    assert slide(tab, 1) == middle and tab.run(CHART + 'button:last-of-type").hidden') is True


def test_a_phone_shows_it_whole_and_nothing_is_asked_or_fails(tab):
    tab.show(375, 800)
    tab.open(tab.address)
    assert tab.run("document.documentElement.scrollWidth") <= 375
    asked = [e["params"]["request"]["url"] for e in tab.events if e["method"] == "Network.requestWillBeSent"]
    assert all(url.startswith(("file:", "data:")) for url in asked)
    assert not [e for e in tab.events if e["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
    tab.show(900, 1400)
