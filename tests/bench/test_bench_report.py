"""The bench report: drawings stay inside their frames whatever the data, strangers' text stays text, gaps are said."""

from __future__ import annotations

import base64
import hashlib
import itertools
import math
import random
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from inpage.cli import main
from inpage.errors import InvalidRequest
from inpage_bench.report import markdown_table, update_readme, write_report
from inpage_bench.report import plots as p
from inpage_bench.report.frame import NARROW, WIDE, Axis, Mark, spread
from inpage_bench.report.html import page
from inpage_bench.report.markup import tag
from inpage_bench.report.readme import BEGIN, END
from inpage_bench.report.scale import fit
from inpage_bench.report.text import commands, number, quantity, span, tick
from inpage_bench.report.view import View
from inpage_bench.report.wording import headline
from inpage_bench.results import (
    Adapter,
    Cell,
    Difference,
    Engine,
    Environment,
    Model,
    Pair,
    Peaks,
    Results,
    Shard,
    Target,
    Tool,
    metric,
)

NASTY = '<script>alert("1")</script> & \' | ` \x1b[31mred\x1b[0m \x00\ud800 x</svg>'
SVG = "{http://www.w3.org/2000/svg}"


# -- drawings ------------------------------------------------------------------------------------------------------


def inside(markup: str) -> ET.Element:
    """The drawing as XML, every point of it finite and within its view box (a dot's rim and half a line aside)."""
    root = ET.fromstring(markup)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert root.attrib["role"] == "img" and root.attrib["aria-label"]
    for element in root.iter():
        places = [(element.get(x), element.get(y)) for x, y in (("x", "y"), ("cx", "cy"), ("x1", "y1"), ("x2", "y2"))]
        places += re.findall(r"(-?[\d.]+),(-?[\d.]+)", element.get("d", ""))
        if element.tag == SVG + "rect":
            right, bottom = (
                float(element.get(a, "0")) + float(element.get(b, "0")) for a, b in (("x", "width"), ("y", "height"))
            )
            places.append((str(right), str(bottom)))
            assert float(element.get("width", "0")) >= 0 and float(element.get("height", "0")) >= 0
        for x, y in places:
            if x is not None and y is not None:
                assert -6 <= float(x) <= width + 6 and -6 <= float(y) <= height + 6, (element.tag, x, y)
    return root


def series(rng: random.Random) -> list[float]:
    """Values of any size: many or one, all equal, all zero, over many magnitudes."""
    n = rng.choice([1, 2, 3, 40, 900])
    size = 10 ** rng.uniform(-7, 13)
    kind = rng.randrange(4)
    if kind == 0:
        return [size] * n
    if kind == 1:
        return [0.0] * n
    return [size * 10 ** rng.uniform(-4, 4) if kind == 2 else size * rng.uniform(0.9, 1.1) for _ in range(n)]


def mark(rng: random.Random) -> Mark:
    return Mark(
        rng.choice(["a", NASTY, "an engine with a very long name " * 4]), f"c{rng.randrange(7)}", rng.randrange(9)
    )


def some_lines(rng: random.Random, width: float) -> str:
    made = []
    for _ in range(rng.randint(1, 9)):
        ys = series(rng)[:20]
        xs = [float(2 ** (i % 14)) for i in range(len(ys))]
        made.append(p.Line(mark(rng), [p.Point(x, y, y * 0.9, y * 1.1, NASTY) for x, y in zip(xs, ys, strict=True)]))
    return p.lines(width, p.Text(NASTY), made, Axis("tokens", log=True), Axis("tokens a second"))


def some_distribution(rng: random.Random, width: float) -> str:
    samples = [p.Sample(mark(rng), series(rng)) for _ in range(rng.randint(1, 9))]
    return p.distribution(width, p.Text("t", "d"), samples, Axis("ms", log=rng.random() < 0.5))


def some_bars(rng: random.Random, width: float) -> str:
    rows = [
        p.Bar(mark(rng).label, [("p0", NASTY, v) for v in series(rng)[:5]], quantity(1e6, "bytes")) for _ in range(9)
    ]
    refs = [p.Reference(series(rng)[0], "half of the model in f16")] if rng.random() < 0.5 else []
    return p.bars(width, p.Text("t", extra=refs), rows, Axis("MB"))


def some_roofline(rng: random.Random, width: float) -> str:
    sizes = [10 ** rng.uniform(6, 13) for _ in range(40)]
    roofs = [p.Roof("2 threads", sizes.pop(), sizes.pop()) for _ in range(rng.randint(1, 2))]
    spots = [p.Spot(mark(rng), 10 ** rng.uniform(-1, 5), sizes.pop(), NASTY) for _ in range(rng.randint(1, 12))]
    return p.roofline(width, p.Text("t"), roofs, spots)


@pytest.mark.parametrize("draw", [some_lines, some_distribution, some_bars, some_roofline])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_drawings_stay_inside_whatever_the_data(draw: Callable[[random.Random, float], str], width: float) -> None:
    for seed in range(60):
        inside(draw(random.Random(seed), width))


def test_a_bar_is_as_long_as_its_value_says() -> None:
    rows = [p.Bar("a", [("c0", "", 50.0)], "50"), p.Bar("b", [("c1", "x", 60.0), ("c2", "y", 40.0)], "100")]
    bars = list(inside(p.bars(WIDE, p.Text("t"), rows, Axis("x"))).iter(SVG + "rect"))
    a, x, y = (float(r.get("width", "nan")) for r in bars)
    assert x / a == pytest.approx(1.2, rel=1e-3) and y / a == pytest.approx(0.8, rel=1e-3)
    assert float(bars[2].get("x", "nan")) == pytest.approx(float(bars[1].get("x", "nan")) + x, abs=0.02)


def test_a_coordinate_is_never_nan() -> None:
    with pytest.raises(ValueError, match="finite"):
        tag("circle", cx=math.nan)


@pytest.mark.parametrize("log", [False, True])
def test_scales_rise_and_their_ticks_are_few_and_inside(log: bool) -> None:
    rng = random.Random(1)
    for _ in range(400):
        values = [*series(rng), math.nan, math.inf]
        scale = fit(values, 40, 500, log=log)
        ticks = scale.ticks(7)
        assert 2 <= len(ticks) <= 7 and ticks == sorted(set(ticks))
        assert all(scale.low * (1 - 1e-9) <= t <= scale.high * (1 + 1e-9) for t in ticks)
        placed = [scale(v) for v in sorted(v for v in values if math.isfinite(v))]
        assert placed == sorted(placed) and placed[0] >= 40 and placed[-1] <= 500 + 1e-9


def test_labels_are_spread_in_order_and_stay_inside() -> None:
    rng = random.Random(2)
    for _ in range(300):
        wanted = [rng.uniform(0, 300) for _ in range(rng.randint(1, 12))]
        placed = spread(wanted, 14, 10, 290)
        order = sorted(range(len(wanted)), key=lambda i: wanted[i])
        assert all(9.999 <= y <= 290.001 for y in placed)
        assert all(placed[b] - placed[a] >= 14 - 1e-6 for a, b in itertools.pairwise(order))


def test_numbers_read_well() -> None:
    said = [number(v) for v in (0.01234, 5.5, 9.999, 97.34, 999.6, 1234.5, 0, -3.14159)]
    assert said == ["0.0123", "5.50", "10.0", "97.3", "1,000", "1,234", "0", "-3.14"]
    assert [quantity(v, "ms") for v in (4.756, 97.3, 999.7, 12900)] == ["4.76 ms", "97.3 ms", "1.00 s", "12.9 s"]
    assert [quantity(v, "bytes") for v in (512, 96.577e6, 2.4e9)] == ["512 B", "96.6 MB", "2.40 GB"]
    assert quantity(0.934, "share") == "93 %" and quantity(math.nan, "ms") == quantity(None, "ms") == "–"
    assert span(72, 74, "ms") == "72.0 to 74.0 ms" and span(900, 1100, "ms") == "900 ms to 1.10 s"
    assert [tick(v) for v in (0, 0.5, 20, 1000, 12000, 2e6)] == ["0", "0.5", "20", "1,000", "12,000", "2M"]


# -- the page ------------------------------------------------------------------------------------------------------


def results(engines: list[tuple[str, str, float | None]], **environment: object) -> Results:
    """Engines as (name, family, tokens a second after 34 tokens); None could not run. Family "" is ours."""
    env = Environment("Some CPU", 2, 8 * 10**9, "Some OS", "Chromium 1", **environment)  # type: ignore[arg-type]
    out = Results("2026-03-05T10:00:00Z", "inpage bench", 12.5, Tool("1", "abcdef0123456", False), env)
    out.models = [Model("m", "Model", 10**8, 7 * 10**7, 2 * 10**8, "Q4_1", "00" * 32)]
    for i, (name, family, speed) in enumerate(engines):
        kind = "peer" if family else "inpage"
        error = None if speed else "it broke: " + NASTY
        inside = family != "native"
        engine = Engine(name, kind, "wasm", "v", 2, "1", "Q4_1", family=family or "inpage", in_page=inside, error=error)
        out.engines.append(engine)
        if speed is None:
            continue
        for depth in (34, 512):
            params = {"prompt_tokens": depth, "new_tokens": 16, "concurrency": 1, "depth": depth}
            cell = Cell(i, "m", f"prompt-{depth}", f"{depth} prompt tokens", params, 3, 1)
            rate = speed * 34 / depth
            cell.metrics = {
                "decode_tps": metric([rate * 0.9, rate, rate * 1.2], "tokens/s", "higher"),
                "ttft_ms": metric([depth * 9e3 / speed] * 3, "ms", "lower"),
                "prefill_tps": metric([speed * 4], "tokens/s", "higher"),
                "itl_ms": metric([1e3 / rate] * 30, "ms", "lower", per="token"),
                "process_bytes": metric([4e8], "bytes", "lower", per="cell"),
            }
            out.cells.append(cell)
            if kind == "peer" and not out.engines[0].error:
                ours = out.cells[0 if depth == 34 else 1].metrics["decode_tps"].median
                out.pairs.append(Pair(f"prompt-{depth}", "m", "decode_tps", 0, i, ours, rate, ours / rate))
    return out


class Seen(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def whole() -> Results:
    """A run with all there can be, every text from elsewhere hostile."""
    out = results(
        [(f"inpage {NASTY}", "", 200.0), ("other Q4", "other", 20.0), ("other Q8", "other", 40.0),
         (NASTY, "native", 250.0), ("broken", "broken", None)],
        busy=True, load_before=1.5, load_after=2.5, foreign_cpu_share=0.3, flags=[NASTY],
        adapter=Adapter(NASTY, "a", "d", True), peaks=Peaks({"1": 12.0, "2": 20.0}, {"1": 200.0, "2": 400.0}, NASTY),
    )  # fmt: skip
    for e in (0, 1):
        for at_once in (1, 8):
            cell = Cell(
                e, "m", f"concurrency-{at_once}", NASTY, {"prompt_tokens": 34, "concurrency": at_once, "requests": 8}
            )
            cell.metrics = {"aggregate_tps": metric([90.0 * at_once], "tokens/s", "higher")}
            cell.counts = {"steps": 5, "cache_hits": {NASTY: 3}}
            out.cells.append(cell)
        for name in ("load-cold", "load-cached"):
            cell = Cell(e, "m", name, f"{name}: {NASTY}")
            cell.metrics = {"ready_ms": metric([3e3], "ms", "lower"), "phase_python_ms": metric([2e3], "ms", "lower"),
                            "phase_weights_ms": metric([1.5e3], "ms", "lower")}  # fmt: skip
            out.cells.append(cell)
    out.cells.append(Cell(3, "m", "prompt-2048", "long", error=NASTY, notes=[NASTY]))
    out.differences = [Difference("prompt-34", "m", 0, 1, 7, 16), Difference("prompt-34", "m", 0, 3, None, 16)]
    out.targets = [Target(NASTY, "< 1", "2", "fail", NASTY), Target("x", "> 1", None, "not measured", "")]
    return out


def test_strangers_text_stays_text_and_nothing_is_fetched(tmp_path: Path) -> None:
    write_report(whole(), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    seen = Seen(text)
    assert not {"script", "img", "iframe", "object", "foreignobject"} & set(seen.tags)
    assert not [name for name, _ in seen.attributes if name == "style" or name.startswith("on")]
    addresses = [v for n, v in seen.attributes if n in ("href", "src", "xlink:href", "action")]
    assert all(v.startswith("data:") for v in addresses), addresses
    assert 'alert("1")' in seen.text and "\x1b" not in text and "[31m" not in text and "\x00" not in text
    css = text.partition("<style>")[2].partition("</style>")[0]
    allowed = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = next(v for n, v in seen.attributes if "default-src" in v)
    assert (
        "default-src 'none'" in policy
        and f"'sha256-{allowed}'" in policy
        and "url(" not in css
        and "@import" not in css
    )
    drawings = re.findall(r'<svg class="(?:wide|narrow)".*?</svg>', text, re.S)
    assert len(drawings) == 2 * 8  # each plot for both widths
    for drawing in drawings:
        inside(drawing)


def test_nobody_is_dropped_in_silence() -> None:
    seen = Seen(page(whole())).text
    for said in ("broken did not run", "it broke:", "busy with other work", "software", "What could not run",
                 "the same for 7 tokens, then different", "the same, all 16", "Targets: 0 of 1 met"):  # fmt: skip
        assert said in seen, said


def test_the_headline_takes_each_family_at_its_fastest_and_is_honest() -> None:
    peers = [("slow Q4", "slow", 10.0), ("slow Q8", "slow", 20.0), ("same", "same", 198.0), ("fast", "native", 300.0)]
    found = results([("inpage a", "", 100.0), ("inpage b", "", 200.0), *peers])
    first, *then = headline(View(found, "m"))
    assert "inpage b decodes Model at 200 tokens a second in the browser on 2 threads: 10× as fast as slow Q8" in first
    assert "slow Q4" not in first and "fast" not in first.replace("as fast as", "")
    assert then == ["About as fast: same (198).", "fast (300, outside the browser) is 1.5× as fast."]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (results([]), "No decoding speed of inpage was measured"),
        (results([("inpage", "", None)]), "No decoding speed of inpage"),
        (results([("inpage", "", 100.0)]), "no peer was measured beside it"),
        (results([("inpage", "", 100.0), ("peer", "peer", None)]), "peer did not run"),
        (results([("peer", "peer", 100.0)]), "only that of peer"),
    ],
    ids=["nothing", "ours broken", "alone", "peer broken", "peer alone"],
)
def test_what_is_missing_is_left_out_and_said(found: Results, said: str) -> None:
    text = page(found)
    assert said in Seen(text).text and "nan" not in text and "None" not in Seen(text).text
    assert markdown_table(found).endswith("\n")
    found.models.clear()
    assert "<h2>" in page(found)  # models known by their cells alone


def test_an_unmeasurable_number_is_no_number() -> None:
    found = results([("inpage", "", 100.0), ("peer", "peer", 50.0)])
    found.cells[0].metrics["decode_tps"].median = math.nan
    found.cells[2].metrics["ttft_ms"].max = math.inf
    assert "nan" not in page(found) and ">inf" not in page(found)


# -- the README ----------------------------------------------------------------------------------------------------


def test_the_readmes_table_is_dated_named_and_well_formed() -> None:
    text = markdown_table(whole())
    assert "5 March 2026" in text and "Some CPU (2 cores)" in text and "revision abcdef0123" in text and "busy" in text
    assert "broken (it broke:" in text and "<script>" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1 and len(rows) == 2 + 4
    assert any("other Q8" in row and "40.0 (5.0×)" in row for row in rows)
    assert any("outside the browser" in row and "250 (0.80×)" in row for row in rows)


def test_the_readme_changes_between_its_two_comments_only(tmp_path: Path) -> None:
    path, found = tmp_path / "README.md", results([("inpage", "", 100.0)])
    path.write_text(f"# before\n{BEGIN}\nold\n{END}\nafter\n")
    assert update_readme(found, path) and not update_readme(found, path)
    assert path.read_text() == f"# before\n{BEGIN}\n{markdown_table(found)}{END}\nafter\n"
    found.environment.cpu = "Another CPU"
    found.save(tmp_path / "other.json")
    assert main(["bench", "readme", str(tmp_path / "other.json"), str(path)]) == 0 and "Another CPU" in path.read_text()
    for broken in ("none", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{END}{END}"):
        path.write_text(broken)
        with pytest.raises(InvalidRequest, match="bench: begin"):
            update_readme(found, path)
        assert path.read_text() == broken


def test_the_columns_are_the_scenarios_that_their_heads_name() -> None:
    """Whatever was measured first: not a longer answer for the short one, not a cache's answers for decoding."""
    found = results([("inpage", "", 100.0), ("peer", "peer", 50.0)])
    together = {"prompt_tokens": 34, "new_tokens": 64, "concurrency": 8, "requests": 8}
    for engine in (0, 1):
        for name, value, params in (
            ("zipf-100", 999.0, {**together, "requests": 100, "distinct": 10}),
            ("concurrency-2", 77.0, {**together, "concurrency": 2}),
            ("decode-batch-8", 200.0, together),
        ):
            if engine == 0 or name != "decode-batch-8":
                cell = Cell(engine, "m", name, name, params)
                cell.metrics["aggregate_tps"] = metric([value], "tokens/s", "higher")
                found.cells.insert(0, cell)
        alone = {"prompt_tokens": 34, "new_tokens": 512, "concurrency": 1, "depth": 34}
        long = Cell(engine, "m", "stream-long", "stream-long", alone)
        long.metrics["decode_tps"] = metric([1.0], "tokens/s", "higher")
        found.cells.insert(0, long)
    view = View(found, "m")
    assert [(f.head, f.scenario) for f in view.figures if f.head in ("Decode", "Together")] == [
        ("Decode", "prompt-34"),
        ("Decode", "prompt-512"),
        ("Together", "decode-batch-8"),
    ]
    assert view.speed(0) == 100.0


def test_a_command_is_told_without_where_it_ran() -> None:
    asked = ["inpage bench --shard 1/2 --out '/a b/c' --threads=2", "inpage bench --shard=2/2 --threads=2 --out=/d"]
    assert commands(asked) == ["inpage bench --threads=2"]
    assert commands(["inpage bench --models /x/y/m,shape:llama-1b --connect ws://host --quick"]) == [
        "inpage bench --models m,shape:llama-1b --quick"
    ]
    found = results([("inpage", "", 100.0)])
    found.command = "inpage bench --out /secret/place"
    found.shards = [Shard("", found.created, found.command, 1.0, found.tool, found.environment)]
    assert "secret" not in markdown_table(found) + page(found)
