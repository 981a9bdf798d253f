import importlib.util
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from fastformers.cluster.records.audit import Estimate
from fastformers.cluster.report.bill import HEADINGS
from fastformers.cluster.report.run_report import RunReport
from tests.needs import need_browser

pytest.importorskip("matplotlib", reason="the page needs the extra `report`")
pytest.importorskip("jinja2", reason="the page needs the extra `report`")

from fastformers.cluster.report.frontier.points import FrontierPoint
from fastformers.cluster.report.page import can_draw, render_page, render_search_page

VOID = {"meta", "link", "br", "use", "path"}
SIZES = {
    "phone": (400, 844),
    "small phone": (320, 568),
    "tablet": (800, 900),
    "desktop": (1280, 900),
}
POINT = FrontierPoint(
    name="teacher",
    kind="teacher",
    quality=0.7031,
    interval=(0.68, 0.73),
    drop=0.0,
    drop_interval=(0.0, 0.0),
    seconds=98000,
    usd=2.3,
)
CANDIDATES = [
    POINT,
    replace(POINT, name="student fp32", kind="student", quality=0.6988, seconds=24000, usd=0.57),
    replace(POINT, name="student int8", quality=0.6982, seconds=6800, usd=0.16, verdict="chosen"),
    replace(POINT, name="pruned", quality=0.69, seconds=4100, usd=0.097, verdict="loses too much"),
    replace(POINT, name="dynamic int8", quality=0.6890, seconds=7200, usd=0.17),
]


class Outline(HTMLParser):
    """Checks that tags close in order, and collects ids and links."""

    def __init__(self, page):
        super().__init__()
        self.open, self.ids, self.links = [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src"):
                self.links.append(value)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(make_report):
    return render_page(make_report())


def test_the_page_is_whole_and_loads_nothing(page):
    outline = Outline(page)
    assert len(set(outline.ids)) == len(outline.ids) > 0
    assert all(link == "data:," or link[1:] in outline.ids for link in outline.links)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(outline.ids)
    assert "<script" not in page
    assert "@import" not in page
    assert page.count('role="img"') == 2 * page.count("<figure>") == 20


def test_each_color_of_a_plot_is_the_theme_s(page):
    """A color that is not a variable would vanish in one of the two themes."""
    drawings = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert not re.findall(r"#[0-9a-f]{6}\b", drawings)
    names = set(re.findall(r"var\((--[\w-]+)\)", page))
    light, dark = page.split("@media (prefers-color-scheme: dark)")
    for name in names:
        assert f"{name}:" in light
        assert f"{name}:" in dark


def test_the_page_says_what_the_report_says(page):
    for words in (
        "1,234,567 texts scored for 0.024 USD",
        "6.6% of the computed tokens are padding",
        "12 rows without a prediction",
        "1 lease lost with an actor",
        "The command was started 2 times",
        "killed",
        "85.00% (95% interval 83.00 to 87.00), macro-F1 61.00%, on 1,000 rows with a label in",
        "column &#39;text&#39;: null text",
        "-19.0% off",
        "0.47 g CO2e by the mix of DEU (CPU modelled, memory modelled; 44 s watched)",
        "n2d-standard-4",
        "1, lost",
        "0.1% of the rows, drawn at random, were scored by teacher/ (float32), too",
        "97.30% equal labels (95%: 96.20 to 98.10) of 1,190 rows",
        "accuracy is -1.20 points (95%: -2.10 to -0.30) beside the audit bundle",
        "2 rows drawn, which the audit bundle could not score",
    ):
        assert words in page, words


def test_an_audit_that_is_too_low_or_empty_is_a_warning(page, make_report):
    audit = make_report().audit
    assert "below --audit-min-agreement" not in page
    low = Estimate(value=0.93, low=0.91, high=0.949)
    warned = render_page(make_report(audit=replace(audit, agreement=low)))
    line = "93.00% equal labels (95%: 91.00 to 94.90) of 1,190 rows, below --audit-min-agreement 95"
    assert line in warned[: warned.index("<h2>")]
    nothing = replace(audit, agreement=None, rows=0, failed_rows=0, quality=None)
    empty = render_page(make_report(audit=nothing))
    assert "<h2>Audit</h2>" not in empty
    assert "no row was drawn, give a larger --audit than 0.001" in empty


@pytest.mark.parametrize("value", [0.0, -0.3])
def test_an_agreement_of_nothing_has_no_bar(make_report, value):
    report = make_report()
    agreement = replace(report.audit.agreement, value=value)
    audit = replace(report.audit, agreement=agreement, quality=None)
    assert f"{100 * value:.2f}%" in render_page(replace(report, audit=audit))


def test_what_it_costs_elsewhere_is_told_as_an_estimate(page, make_report):
    rows = re.findall(r"<tr>(.*?)</tr>", page[page.index("The same run elsewhere") :])
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows[:5]]
    assert [row[0] for row in cells] == [
        *("instance type", "this run", "c7g.xlarge", "n2d-standard-4", "g6.xlarge"),
    ]
    assert cells[2] == [
        *("c7g.xlarge", "0.015 USD", "0.012 USD to 0.020 USD", "5 min 21 s"),
        *("scaled from turin at 4.1 GHz", "us-east-1, 2026-07-20"),
    ]
    assert "An estimate (hatched)" in page
    assert "on Some CPU" in page
    assert "list prices of 2026-07-20." in page
    assert "are not known" not in page


def test_why_nothing_is_known_elsewhere_stands_where_it_would(make_report):
    page = render_page(make_report(other_types=(), other_types_unknown="scored <nothing>"))
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings[:2] == ["The bill", "The same run elsewhere"]
    assert "Lengths and padding" in headings
    place = page[page.index("The same run elsewhere") : page.index("How right the")]
    assert "instance types are not known (reason: scored &lt;nothing&gt;)." in place
    assert "<svg" not in place


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_a_page_needs_all_of_the_extra(missing, monkeypatch):
    assert can_draw()
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else found(name)
    )
    assert not can_draw()


def test_the_printed_lines_add_up(page):
    *lines, total, saved = re.findall(r'<td class="usd">([^<]+)<', page)
    amounts = [0.0 if text.startswith("&lt;") else float(text) for text in lines]
    assert len(amounts) == len(HEADINGS)
    assert round(sum(amounts), 3) == float(total) > 0
    assert total == "0.024"  # two digits
    assert "&lt;0.001" in lines
    assert saved == "&lt;0.001"


def test_text_of_the_user_stays_text(make_report):
    report = make_report(output="/a/<script>alert(1)</script>&$x", price='"<b>"')
    page = render_page(report)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;$x" in page
    search = render_search_page(
        [replace(POINT, name="$a_1$ <i>", kind="<b>")],
        metric="accuracy",
        heading="<u>",
        note="<s>",
    )
    assert "<i>" not in search and "<b>" not in search
    assert "<u>" not in search
    assert "<s>" not in search


def test_a_page_of_many_shards_is_no_larger(make_report):
    few = render_page(make_report(num_actors=8, num_shards=100))
    many = render_page(make_report(num_actors=300, num_shards=20_000))
    assert "20 of 300 actors" in many
    assert len(many) < 600_000
    assert len(few) < 400_000


def test_a_run_with_nothing_left_to_do_has_a_page(make_report):
    report = make_report(
        timeline=(),
        sessions=make_report().sessions[1:],
        history=(),
        early_quote=None,
        quality=None,
        audit=None,
        dead_letter_reasons={},
        nodes=(),
        lengths={},
        actors={},
        other_types=(),
        energy=None,
        usd_per_million=None,
        padding_efficiency=None,
    )
    page = render_page(replace(report, bill=replace(report.bill, prediction=None)))
    Outline(page)
    assert "<figure>" not in page
    assert "not measured" in page.lower()


def test_the_page_is_drawn_from_json(make_report, page):
    content = json.loads(json.dumps(make_report().to_json()))
    assert render_page(RunReport.from_json(content, path="", remedy="")) == page


def test_the_frontier_tells_best_from_beaten():
    page = render_search_page(CANDIDATES, metric="micro-F1", heading="Search on BoolQ", note="")
    Outline(page)
    assert "<h2>Micro-F1 over cost</h2>" in page
    assert '<th scope="col">micro-F1, % (95%)</th>' in page
    assert ">micro-F1, %</text>" in page
    rows = re.findall(r"<tr><td>\d</td><td>([^<]+)</td>.*?<td>([^<]+)</td></tr>", page)
    assert dict(rows) == {
        "teacher": "frontier",
        "student fp32": "frontier",
        "student int8": "chosen, frontier",
        "pruned": "loses too much, frontier",
        "dynamic int8": "beaten",
    }


@pytest.fixture(scope="module")
def browser():
    """Chromium without a screen and without a network; skips where there is none."""
    chromium, driver = need_browser()
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--disable-dev-shm-usage", "--hide-scrollbars"),
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    browser = webdriver.Chrome(options=options, service=service)
    yield browser
    browser.quit()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["run", "search"])
def test_the_page_in_a_browser(browser, page, tmp_path, kind, size, theme):
    """No error, no request, nothing wider than the window, one drawing of each plot to be seen."""
    if kind == "search":
        page = render_search_page(CANDIDATES, metric="micro-F1", heading="Search on BoolQ", note="")
    (tmp_path / "report.html").write_text(page)
    width, height = SIZES[size]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    browser.get_log("performance")  # forgets what came before
    url = (tmp_path / "report.html").as_uri()
    browser.get(url)

    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert {r["request"]["url"] for r in requests} <= {url, "data:,"}
    overflow = browser.execute_script(
        "document.querySelectorAll('details').forEach(d => d.open = true);"
        "return document.scrollingElement.scrollWidth - innerWidth"
    )
    assert overflow <= 0
    seen = browser.execute_script(
        "return [...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().width > 0)"
    )
    assert sum(seen) * 2 == len(seen) > 0
    ink, paper = browser.execute_script(
        "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    )
    ink, paper = (sum(map(int, re.findall(r"\d+", color)[:3])) for color in (ink, paper))
    assert (ink < paper) == (theme == "light")
