import json
import re
import shutil
from dataclasses import asdict
from html.parser import HTMLParser

import pytest

from cluster.report.bill import HEADINGS, TypeCost

pytest.importorskip("matplotlib", reason="the page needs the extra `report`")

from cluster.formatting import format_seconds
from cluster.report.page import render_page, render_search_page
from cluster.report.plots import FrontierPoint

VOID = {"meta", "link", "br", "use", "path"}
SIZES = {"phone": (390, 844), "small phone": (320, 568), "desktop": (1280, 900)}
CANDIDATES = [
    FrontierPoint(name="teacher", quality=0.7031, seconds=98000, usd=2.3),
    FrontierPoint(name="student fp32", quality=0.6988, seconds=24000, usd=0.57),
    FrontierPoint(name="student int8", quality=0.6982, seconds=6800, usd=0.16, verdict="chosen"),
    FrontierPoint(
        name="pruned int8", quality=0.6901, seconds=4100, usd=0.097, verdict="loses too much"
    ),
    FrontierPoint(name="dynamic int8", quality=0.6890, seconds=7200, usd=0.17),
]


def make_timeline(*, num_actors, num_shards, seconds=4.0):
    """Each actor reads a slice, then scores; the second one dies over a shard."""
    timeline = []

    def add(actor, start_s, seconds, *, job="score", lost=False, tokens=0, busy_s, **fields):
        entry = {
            "job": job,
            "name": f"00000-{len(timeline):05d}",
            "actor": f"node-{actor // 16}.example:{actor % 16}",
            "attempt": 1,
            "lost": lost,
            "start_s": start_s,
            "end_s": start_s + seconds,
            "busy_s": busy_s,
            "infer_s": busy_s,
            "rows": tokens // 60,
            "tokens": tokens,
            "predicted_s": 3.5,
            "rss_bytes": 2**28,
        }
        timeline.append({**entry, **fields})
        return start_s + seconds

    clocks = [
        add(actor, 2.0, 5.0, job="prepare", busy_s=2.0, name=f"slice {actor}")
        for actor in range(num_actors)
    ]
    for shard in range(num_shards):
        actor = shard % num_actors
        if shard == num_actors + 1:
            clocks[actor] = add(actor, clocks[actor], seconds / 2, lost=True, busy_s=0.0)
        took = seconds * (1 + 0.2 * (shard % 3))
        clocks[actor] = add(actor, clocks[actor], took, tokens=130_000, busy_s=took - 0.1)
    return timeline, max(clocks)


def make_report(*, num_actors=4, num_shards=37, **changes):
    timeline, work_end_s = make_timeline(num_actors=num_actors, num_shards=num_shards)
    wall_s = work_end_s + 0.3
    names = sorted({entry["actor"] for entry in timeline})
    amounts = [0.012345, *[0.0001 * n for n in range(1, len(HEADINGS))]]
    items = [
        {"heading": heading, "what": what, "core_s": 10_000 * usd, "usd": round(usd, 6)}
        for (heading, what), usd in zip(HEADINGS.items(), amounts, strict=True)
    ]
    total = round(sum(item["usd"] for item in items), 6)
    actor = {
        "shards": 9,
        "rows": 20000,
        "rows_per_second": 520.3,
        "tokens_per_second": 31_200.4,
        "busy_s": 38.0,
        "peak_rss_bytes": 2**28,
    }
    report = {
        "rows": 1_234_567,
        "unique_rows": 1_199_000,
        "tokens": 74_000_000,
        "rows_per_second": 2081.2,
        "tokens_per_second": 124_800.0,
        "padding_efficiency": 0.93,
        "wall_s": wall_s,
        "usd_per_hour": 0.169,
        "usd_total": total,
        "usd_per_million": 0.0312,
        "price": "c7i.4xlarge on demand, us-east-1, 2026-07-20",
        "price_is_estimate": True,
        "dead_letters": 12,
        "retries": 1,
        "skipped_files": {},
        "earlier": {
            "shards": 3,
            "rows": 9000,
            "actor_s": 12.5,
            "started_at": 1.7635e9,
            "finished_at": 1.76351e9,
        },
        "num_actors": num_actors,
        "num_machines": 1,
        "cores": ["4 actors x 1 thread on cores 0-3 of 4; no overlap"],
        "driver_cpu": "Some CPU",
        "peak_rss_bytes": 2**28,
        "actors": dict.fromkeys(names, actor),
        "started_at": "2026-11-24T01:02:03+00:00",
        "bill": {
            "items": items,
            "total_usd": total,
            "duplicates_saved_usd": 0.000321,
            "prediction": {
                "predicted_core_s": 100.0,
                "measured_core_s": 123.4,
                "error": 100 / 123.4 - 1,
                "shard_error": 0.034,
            },
        },
        "other_types": [
            asdict(TypeCost(instance_type=name, usd=usd, basis=basis))
            for name, usd, basis in [
                ("c7g.xlarge", 0.0151, "scaled"),
                ("n2d-standard-4", 0.0188, "measured"),
                ("Standard_D4as_v5", 0.0203, "scaled"),
            ]
        ],
        "energy": {
            "kwh": 0.00123,
            "cpu_kwh": 0.001,
            "gpu_kwh": 0.0,
            "memory_kwh": 0.00023,
            "co2_kg": 0.00047,
            "country": "DEU",
            "cpu_basis": "modelled",
            "gpu_basis": "none",
            "covered_s": 44.0,
            "source": "codecarbon 3.3.2",
        },
        "lengths": {
            "8": [9000, 60_000, 62_000],
            "16": [61_000, 800_000, 850_000],
            "32": [250_000, 6_500_000, 6_900_000],
            "64": [420_000, 20_000_000, 21_000_000],
            "128": [300_000, 27_000_000, 28_500_000],
            "256": [90_000, 16_000_000, 17_500_000],
            "512": [9000, 3_600_000, 4_400_000],
        },
        "timeline": timeline,
        "bundle": {
            "path": "/mnt/bundles/a-rather-long-directory-name/that-does-not-break/bundle",
            "precision": "int8",
            "digest": "8c8c1fa455bc8b5a4f000063fc6181c5",
            "max_batch_tokens": 512,
            "profile_cpu": "INTEL(R) XEON(R) PLATINUM 8581C CPU @ 2.10GHz",
        },
        "output": "s3://a-bucket-with-a-long-name/and/a/long/path/to/the/scored/corpus/2026-11-24",
    }
    return {**report, **changes}


class Outline(HTMLParser):
    """Checks that tags close in order and ids are unique, and collects what is asked of it."""

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
def page():
    return render_page(make_report())


def test_the_page_is_whole_and_loads_nothing(page):
    outline = Outline(page)
    assert len(set(outline.ids)) == len(outline.ids) > 0
    assert all(link == "data:," or link[1:] in outline.ids for link in outline.links)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(outline.ids)
    assert "<script" not in page
    assert "@import" not in page
    assert page.count('role="img"') == 2 * page.count("<figure>") == 8


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
        "1,234,567 texts scored for 0.02014 USD",
        "7.0% padding",
        "12 rows have no prediction",
        "1 lease lost with an actor",
        "9,000 rows in 3 shards were scored by earlier runs, 2025-11-18 21:06 to",
        "0.012345",
        "-0.000321",
        "-19.0% off",
        "0.47 g CO2e by the mix of DEU (CPU modelled, memory modelled; 44 s watched)",
        "n2d-standard-4",
        "1, lost",
    ):
        assert words in page, words


def test_the_printed_lines_add_up(page):
    amounts = [float(text) for text in re.findall(r'<td class="usd">([^<]+)<', page)]
    *items, total, saved = amounts
    assert len(items) == len(HEADINGS)
    assert round(sum(items), 6) == total
    assert saved < 0


def test_text_of_the_user_stays_text():
    report = make_report(output="/a/<script>alert(1)</script>&$x", price='"<b>"')
    page = render_page(report)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;$x" in page
    search = render_search_page(
        [FrontierPoint(name="$a_1$ <i>", quality=0.5, seconds=1, usd=1)], heading="<u>", note="<s>"
    )
    assert "<i>" not in search
    assert "<u>" not in search
    assert "<s>" not in search


def test_a_page_of_many_shards_is_no_larger():
    few = render_page(make_report(num_actors=8, num_shards=100))
    many = render_page(make_report(num_actors=300, num_shards=20_000))
    assert "20 of 300 actors" in many
    assert len(many) < 600_000
    assert len(few) < 400_000


def test_a_run_with_nothing_left_to_do_has_a_page():
    report = make_report(
        timeline=[],
        lengths={},
        actors={},
        other_types=[],
        energy=None,
        usd_per_million=None,
        padding_efficiency=None,
    )
    report["bill"]["prediction"] = None
    page = render_page(report)
    Outline(page)
    assert "<figure>" not in page
    assert "not measured" in page.lower()


def test_the_page_is_drawn_from_json():
    assert render_page(json.loads(json.dumps(make_report()))) == render_page(make_report())


def test_the_frontier_tells_best_from_beaten():
    page = render_search_page(CANDIDATES, heading="Search on BoolQ", note="")
    Outline(page)
    rows = re.findall(r"<tr><td>([^<]+)</td>.*?<td>([^<]+)</td></tr>", page)
    assert dict(rows) == {
        "teacher": "best",
        "student fp32": "best",
        "student int8": "chosen",
        "pruned int8": "loses too much",
        "dynamic int8": "beaten",
    }


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59, "59.0 s"), (61, "1 min 1 s"), (7384, "2 h 3 min")]
)
def test_lengths_of_time(seconds, text):
    assert format_seconds(seconds) == text


@pytest.fixture(scope="module")
def browser():
    """Chromium without a screen and without a network; skips where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is in the extra `dev`")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromedriver are not on PATH (Debian: chromium chromium-driver)")
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
        page = render_search_page(CANDIDATES, heading="Search on BoolQ", note="")
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
