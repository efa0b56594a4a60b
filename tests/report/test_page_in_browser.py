"""The page in Chromium: no script errors, any width, dark, printed, sorted, filtered, legible."""

import base64
import shutil
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from campaign_factory import Row, writer_to

from progip import records
from progip.report import write_report

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: install .[dev]")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Debian's chromium and chromium-driver"
)

# the lowest contrast of any text with what is painted behind it (WCAG 2.2), where it is not hatched
CONTRAST = """
const parse = (c) => c.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => { const f = (v) => { v /= 255;
  return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
const behind = (e) => { for (; e; e = e.parentElement) {
  const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] === 1) return c; }
  return [255, 255, 255]; };
let worst = [99, ""];
for (const e of document.body.querySelectorAll("*")) {
  const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  const ink = parse(getComputedStyle(e).color);
  if (!own || !e.getClientRects().length || ink[3] === 0 || e.closest("svg")) continue;
  const [a, b] = [light(ink), light(behind(e))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < worst[0]) worst = [ratio, `${e.tagName}.${e.className}: ${e.textContent}`];
}
return worst;"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A layer for each share of failures, and one with few runs: every kind of square is there."""
    campaign = tmp_path_factory.mktemp("browser") / "campaign"
    rows: list[Row] = []
    shares = (0, 1, 2, 4, 9, 16, 25, 49)  # of 60 runs
    places = [(f"features.{n}.conv", fails, 60) for n, fails in enumerate(shares)]
    for layer, failing, each in [*places, ("classifier", 1, 3)]:
        for bit, number in product(range(32), range(each)):
            fails = bit == 30 or (bit in (26, 28, 29) and number < failing)
            rows.append(
                {"run_id": len(rows), "alarm": bit == 30, "originally_correct": True,
                 "classification_failure": fails, "layer": layer, "bit": bit}
            )  # fmt: skip
    for fault_pass, name in product(records.PASSES[:2], ("none", "progip")):
        watched = rows if name != "none" else [row | {"alarm": False} for row in rows]
        writer_to(campaign)(watched, fault_pass=fault_pass, protection=name)
    write_report(campaign, beside=True)
    return (campaign / "report" / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


def opened(browser: Any, address: str, width: int = 1280, **media: str) -> Any:
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    features = [{"name": name.replace("_", "-"), "value": v} for name, v in media.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(address)
    return browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_no_errors_nothing_too_wide_all_legible(
    browser: Any, address: str, width: int, scheme: str
) -> None:
    page = opened(browser, address, width, prefers_color_scheme=scheme)
    assert page.get_log("browser") == []
    root = "document.documentElement"
    assert page.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")
    assert page.execute_script("return [...document.images].every((i) => i.naturalWidth > 0)")
    paper = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    shades = (
        "return new Set([...document.querySelectorAll('.map td')].map((e) => e.className)).size"
    )
    assert page.execute_script(shades) >= 6
    ratio, where = page.execute_script(CONTRAST)
    assert ratio >= 4.5, where


def test_the_contents_stay_in_view_on_wide_screens(browser: Any, address: str) -> None:
    page = opened(browser, address, 1400)
    page.execute_script("document.documentElement.style.scrollBehavior='auto'; scrollTo(0, 4000)")
    assert (
        page.execute_script("return document.querySelector('nav').getBoundingClientRect().top") == 0
    )


def test_tables_sort_and_filter(browser: Any, address: str) -> None:
    page = opened(browser, address)
    bits = """return [...document.querySelector("#ranked_bits table").tBodies[0].rows]
        .filter((row) => row.checkVisibility()).map((row) => Number(row.cells[1].textContent))"""
    press = (
        "document.querySelectorAll('#ranked_bits table')[0].querySelectorAll('button')[1].click()"
    )
    before = page.execute_script(bits)
    assert before[0] == 30
    for expected in (sorted(before, reverse=True), sorted(before), before):
        page.execute_script(press)
        assert page.execute_script(bits) == expected
    page.execute_script("""const field = document.querySelector("#ranked_bits input");
        field.value = "sign"; field.dispatchEvent(new Event("input"));""")
    assert page.execute_script(bits) == [31]


def test_values_show_on_focus(browser: Any, address: str) -> None:
    page = opened(browser, address)
    for kind in (".mark", ".map td[data-hint]"):
        told = page.execute_script(
            f"const e = document.querySelector('{kind}'); e.focus();"
            "return [e.dataset.hint, document.querySelector('.tip').textContent,"
            "document.querySelector('.tip').checkVisibility()]"
        )
        assert told[0] == told[1] != ""
        assert told[2]


def test_it_prints(browser: Any, address: str) -> None:
    page = opened(browser, address, prefers_color_scheme="dark")
    done = page.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    content = base64.b64decode(done["data"])
    assert content.startswith(b"%PDF")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    for gone in ("nav", "details", ".filter"):
        shown = f"return document.querySelector('{gone}').checkVisibility()"
        assert not page.execute_script(shown), gone
    title = "return getComputedStyle(document.querySelector('h2')).breakAfter"
    assert page.execute_script(title) == "avoid"
    paper = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"


def test_maps_fit_on_paper(browser: Any, address: str) -> None:
    page = opened(browser, address, 703)  # A4 without its margins
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    wide, tall, line = page.execute_script(
        "const table = document.querySelector('.map table');"
        "const first = table.tBodies[0].rows[0].cells[0], style = getComputedStyle(first);"
        "return [table.offsetWidth, first.clientHeight, parseFloat(style.lineHeight)]"
    )
    assert wide <= 703
    assert tall < 2 * line  # names of layers are not broken letter by letter
