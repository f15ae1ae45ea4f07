"""The explorer in a browser: sliders, keys, touch, clicks and the address move the read-out and the point."""

import pytest
from explorer_case import CONFIG, SMALL, arch_at, random_cells, searched, value

from rfdetr.errors import UserError
from rfdetr.plots import explorer


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A browser with an explorer of a search, and the data behind it."""
    from rfdetr.book import browser

    try:
        browser.find_browser()
    except UserError as error:
        pytest.skip(str(error))
    found = searched(SMALL)
    path = tmp_path_factory.mktemp("page") / "page.html"
    content = explorer.html(CONFIG, SMALL, found, ident="one") + explorer.html(CONFIG, SMALL, ident="two")
    path.write_text(f'<!doctype html><body style="width:800px">{content}', encoding="utf-8")
    with browser.running() as chromium:
        tab = chromium.tab()
        tab.show(1000, 900)
        yield tab, path.as_uri(), explorer.payload(CONFIG, SMALL, found)


READ = """(() => {
  const box = document.querySelector("#one");
  const number = (text) => Number(text.replace(/[^0-9.]/g, ""));
  const value = (cell) => (cell.querySelector("b") ?? cell).innerText;
  const cells = [...box.querySelectorAll("[data-column]")];
  const here = box.querySelector("circle.here");
  return {
    shown: Object.fromEntries(cells.map((c) => [c.dataset.column, number(value(c))])),
    place: here && [Number(here.getAttribute("cx")), Number(here.getAttribute("cy"))],
    sliders: [...box.querySelectorAll("input")].map((i) => i.getAttribute("aria-valuetext")),
    sentence: box.querySelector(".sentence").innerText,
    address: location.href,
  };
})()"""


def point(data, at):
    """Address of a cell, as the page writes it."""
    return "-".join(str(axis["values"][i]) for axis, i in zip(data["axes"], at, strict=True))


def test_the_address_chooses_and_the_page_shows_the_numbers_of_the_code(page):
    tab, address, data = page
    for at in random_cells(data, 6, seed=1):
        tab.open(f"{address}?one={point(data, at)}#one")
        read = tab.run(READ)
        arch = arch_at(data, at)
        assert read["sliders"][0] == f"{data['axes'][0]['values'][at[0]]} px"
        assert f"{arch.tokens:,} tokens" in read["sentence"] and f"{arch.queries} queries" in read["sentence"]
        columns = [part["column"] for part in (*data["tiles"], *data["stages"])]
        assert read["shown"] == {column: float(value(data, column, at)) for column in columns}


def test_an_address_of_no_network_starts_as_without_one(page):
    tab, address, _ = page
    tab.open(address)
    start = tab.run(READ)
    for wrong in ("1-2-3-4-5", "384-16-2", "x", "384-16-2-2-300-1"):
        tab.open(f"{address}?one={wrong}")
        assert tab.run(READ)["shown"] == start["shown"]


def press(tab, key, code):
    for kind in ("keyDown", "keyUp"):
        tab.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code)
    tab.settle()


def test_keys_move_the_slider_the_read_out_the_point_and_the_address(page):
    tab, address, data = page
    tab.open(f"{address}?one=320-24-1-0-50&two=448-16-2-2-300")
    before = tab.run(READ)
    tab.run('document.querySelector("#one-resolution").focus()')
    press(tab, "ArrowRight", 39)
    after = tab.run(READ)
    assert after["sliders"] == ["384 px", *before["sliders"][1:]]
    assert after["shown"]["tokens"] == 256 and after["shown"]["AP"] == value(data, "AP", (1, 1, 0, 0, 0))
    assert after["place"] != before["place"]
    press(tab, "End", 35)
    press(tab, "Tab", 9)
    press(tab, "Home", 36)
    tab.run("new Promise((done) => setTimeout(done, 300))")
    read = tab.run(READ)
    assert read["sliders"][:2] == ["448 px", "16 px"]
    assert "?one=448-16-1-0-50&two=448-16-2-2-300#one" in read["address"]
    tab.open("about:blank")  # an address that only gains a fragment would not be loaded anew
    tab.open(read["address"])
    assert tab.run(READ) == read


def test_a_click_chooses_a_network_and_a_touch_moves_a_slider(page):
    tab, address, data = page
    tab.open(f"{address}?one=320-24-1-0-50")
    first = tab.run(READ)
    tab.open(f"{address}?one=448-16-4-2-300")
    frame = tab.run(
        '(({left, top}) => [left, top])(document.querySelector("#one .chart").getBoundingClientRect())'
    )
    x, y = (frame[i] + first["place"][i] for i in (0, 1))
    for kind in ("mousePressed", "mouseReleased"):
        tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    tab.settle()
    assert tab.run(READ)["shown"] == first["shown"]
    end = tab.run(
        "(({right, top, height}) => [right - 3, top + height / 2])"
        '(document.querySelector("#one-decoder_layers").getBoundingClientRect())'
    )
    tab.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": end[0], "y": end[1]}])
    tab.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    tab.settle()
    assert tab.run(READ)["sliders"][3] == str(data["axes"][3]["values"][-1])


def test_buttons_jump_and_nothing_is_asked_of_a_network_or_fails(page):
    tab, address, data = page
    tab.open(f"{address}?one=320-24-1-0-50")
    tab.run(
        '[...document.querySelectorAll("#one button")].find((b) => b.innerText === "most accurate").click()'
    )
    read = tab.run(READ)
    best = max(v for v in data["columns"]["AP"]["data"])
    assert read["shown"]["AP"] == best and "It is on the front" in read["sentence"]
    asked = [e["params"]["request"]["url"] for e in tab.events if e["method"] == "Network.requestWillBeSent"]
    assert all(url.startswith(("file:", "data:")) for url in asked)
    assert not [e for e in tab.events if e["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]


def test_the_box_fits_a_phone(page):
    tab, address, _ = page
    tab.show(375, 800)
    tab.open(address)
    tab.run('document.body.style.width = "auto"')
    tab.settle()
    assert tab.run("document.documentElement.scrollWidth") <= 375
    tab.show(1000, 900)
