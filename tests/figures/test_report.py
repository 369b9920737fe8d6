"""The report in a real browser: no errors, no network, exact numbers under the sliders, keyboard, phone, dark mode; its tables."""

import csv
import html
import json
import re

import numpy as np
import pytest

from figures import table
from figures.experiments import REFERENCE, experiment_of
from figures.inputs import Files, seeds_of
from figures.registry import entries
from figures.report.page import FIGURE_NAMED, SLIDERS
from figures.report.verdicts import CLAIMS
from figures.table import Spread, csv_columns, latex, markdown, text_of
from tests.figures.conftest import ROOT
from theory import AveragingLaw, BinaryMixture, ProportionalLaw, misalignment_ceiling, optimal_class_snr

LEFT = 66  # of the plots, in the units of their drawing
PHONE = {"viewport": {"width": 375, "height": 812}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}


class Page:
    """The report, open; every word of the console and every request is kept."""

    def __init__(self, browser, report, **options):
        self.said, self.asked = [], []
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(report.as_uri())

    def slide(self, **positions):
        """Move sliders to positions of 0 .. 1000, as a user's input does; returns the values that the page then shows."""
        for name, position in positions.items():
            script = """([n, p]) => {
                const s = document.getElementById(n);
                s.value = p;
                for (const kind of ['input', 'change']) s.dispatchEvent(new Event(kind));
            }"""
            self.page.evaluate(script, [f"slider-{name}", str(position)])
        return self.values()

    def values(self):
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return {name: float(self.text(f"value-{name}").rstrip("°").replace(",", "")) for name, _, _ in SLIDERS}

    def text(self, name):
        return self.page.inner_text(f"#{name}")

    def curve(self, kind):
        """(n, accuracy) of the points of a drawn curve, from its pixels."""
        path = self.page.get_attribute(f"#explorer-plot path.curve.{kind}", "d")
        points = np.array([[float(v) for v in point.split()] for point in re.findall(r"[ML]([\d. -]+)", path)])
        return 10 ** (4 * (points[:, 0] - LEFT) / (640 - LEFT - 14)), 1 - (points[:, 1] - 12) / (380 - 12 - 44)


@pytest.fixture
def opened(browser, drawn):
    page = Page(browser, drawn / "report.html", viewport={"width": 1100, "height": 900})
    yield page
    page.context.close()


def exact(d, norm, sigma, eps, c, n, angle):
    """theory/'s mean robust accuracy at what the sliders show."""
    real, turn = np.zeros(int(d)), np.radians(angle)
    real[0] = norm
    synthetic = np.zeros(int(d))
    synthetic[0], synthetic[1] = c * norm * np.cos(turn), c * norm * np.sin(turn) if angle else 0.0
    return AveragingLaw(BinaryMixture(real, sigma**2), BinaryMixture(synthetic, sigma**2), int(n), eps).mean()


def test_it_opens_without_a_word_on_the_console_and_asks_nobody(opened):
    opened.page.wait_for_load_state("networkidle")
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith(("file:", "data:"))] == []
    assert opened.page.eval_on_selector_all("figure img", "all => all.length") == sum(not entry.is_table for entry in entries())
    assert opened.page.eval_on_selector_all("figure table", "all => all.length") == sum(entry.is_table for entry in entries())


def test_sliders_move_the_curve_to_what_the_theory_gives(opened):
    """Seven sliders at random, twelve times, ends included: the number at n and every point of both curves within 1e-3 (measured: 1e-4)."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        before = opened.page.get_attribute("#explorer-plot path.curve.synthetic", "d")
        positions = {name: int(rng.choice([0, 1000, *rng.integers(0, 1001, 6)])) for name, _, _ in SLIDERS}
        chosen = opened.slide(**positions)
        assert opened.page.get_attribute("#explorer-plot path.curve.synthetic", "d") != before
        assert float(opened.text("out-accuracy")) == pytest.approx(exact(**chosen), abs=2e-4), seed
        assert float(opened.text("out-real")) == pytest.approx(exact(**chosen | {"c": 1, "angle": 0}), abs=2e-4), seed
        real = BinaryMixture(np.eye(int(chosen["d"]))[0] * chosen["norm"], chosen["sigma"] ** 2)
        ceiling = misalignment_ceiling(real, np.cos(np.radians(chosen["angle"])), chosen["eps"])
        assert float(opened.text("out-ceiling")) == pytest.approx(ceiling, abs=1e-4), seed
        for kind, change in (("synthetic", {}), ("real", {"c": 1, "angle": 0})):
            n, accuracy = opened.curve(kind)
            for i in (0, 10, 20, 40):  # n = 1, 10, 100, 10,000: whole numbers, where theory/ has a value
                expected = exact(**chosen | change | {"n": round(float(n[i]), 0)})
                assert accuracy[i] == pytest.approx(expected, abs=1e-3), (seed, kind, n[i], chosen)
    assert opened.said == []


def test_the_law_of_the_page_is_that_of_theory_in_few_dimensions_and_at_every_end(opened):
    """300 settings, d = 2 to 5 and ends of every slider among them, angles above 0: within 2e-4."""
    rng = np.random.default_rng(3)
    ends = {"norm": (0.25, 4.0), "sigma": (0.4, 3.0), "eps": (0.0, 3.0), "c": (0.25, 4.0), "n": (1, 10_000), "angle": (0, 90)}
    chosen = []
    for _ in range(300):
        setting = {name: float(rng.choice([low, high, low + (high - low) * rng.random()])) for name, (low, high) in ends.items()}
        chosen.append(
            setting | {"d": int(rng.choice([2, 3, 3, 4, 5, 1000])), "n": round(setting["n"]), "angle": round(setting["angle"])}
        )
    chosen.append({"d": 3, "norm": 1.0, "sigma": 0.4, "eps": 1.0, "c": 0.25, "n": 1, "angle": 1})
    found = opened.page.evaluate("all => all.map(meanRobustAccuracy)", chosen)
    assert found == pytest.approx([exact(**setting) for setting in chosen], abs=2e-4)


def test_the_second_explorer_shows_the_law_and_its_best_class_snr(opened):
    """Every ninth stop of the slider under every training: the curve against T16 to a pixel, the best class SNR against a search."""
    stops = int(opened.page.get_attribute("#slider-ratio", "max")) + 1
    grid = np.geomspace(0.3, 10, 31)
    for training, (eps, ridge) in enumerate([(0.0, 0.0), (0.0, 1e-3), (0.5, 0.0)]):
        opened.page.select_option("#training", str(training))
        for stop in (*range(0, stops, 9), stops - 1):
            opened.slide(ratio=stop)
            ratio = float(opened.text("value-ratio").replace(",", ""))
            paths = opened.page.eval_on_selector_all(
                "#separation-plot path.curve", "all => all.map((one) => one.getAttribute('d'))"
            )
            points = np.array([[float(v) for v in point.split()] for point in re.findall(r"[ML]([\d. -]+)", " ".join(paths))])
            low, high = opened.page.evaluate("[ANGLES.low, ANGLES.high]")
            for x, y in points[:: len(points) // 3]:
                snr = 10 ** (np.log10(0.3) + (x - LEFT) / (640 - LEFT - 14) * (1 - np.log10(0.3)))
                law = ProportionalLaw(snr, ratio, ridge=ridge, eps=eps)
                height = (y - 12) / (380 - 12 - 44)
                assert high - (high - low) * height == pytest.approx(np.log10(law.across / law.along), abs=0.02)
            found = optimal_class_snr("logistic", eps, samples_per_dim=ratio, ridge=ridge)
            best = opened.text("out-best")
            if found.more_is_better:
                assert best == "10 or more"
            else:
                assert float(best) == pytest.approx(found.best, rel=grid[1] / grid[0] - 1 + 0.01)
            assert float(opened.text("out-cosine")) == pytest.approx(found.alignment, abs=2e-3)
            shown = opened.text("out-separable")
            threshold = next((snr for snr in grid[grid > eps] if ProportionalLaw(snr, ratio, eps=eps).separable), None)
            assert shown == ("none up to 10" if threshold is None else shown)
            if shown.startswith("from"):
                assert float(shown.split()[1]) == pytest.approx(threshold, rel=0.01)
    assert opened.said == []


def test_the_address_keeps_what_the_second_explorer_shows(opened, browser, drawn):
    opened.page.select_option("#training", "2")
    opened.slide(ratio=7)
    address, shown = opened.page.url, [opened.text(f"out-{name}") for name in ("best", "cosine", "inner", "separable")]
    assert address.endswith("#separation,ratio=7,training=2")
    other = Page(browser, drawn / "report.html")
    other.page.goto(address)
    other.page.reload()
    assert [other.text(f"out-{name}") for name in ("best", "cosine", "inner", "separable")] == shown
    for wrong in ("#separation,ratio=x,training=99", "#separation,", "#separation,toString=3"):
        other.page.goto(f"{(drawn / 'report.html').as_uri()}{wrong}")
        other.page.reload()
        assert other.page.input_value("#training") == "0"
    assert other.said == []
    other.context.close()


def test_one_address_keeps_both_explorers(opened, browser, drawn):
    """Moving or resetting one leaves what the other had put there."""
    opened.slide(d=200)
    opened.page.select_option("#training", "1")
    assert opened.page.url.endswith("#separation,d=200,training=1")
    other = Page(browser, drawn / "report.html")
    other.page.goto(opened.page.url)
    other.page.reload()
    assert other.values() == opened.values()
    assert other.page.input_value("#training") == "1"
    other.page.click("#reset")
    assert other.page.url.endswith("#averaging,training=1")
    other.page.evaluate("location.hash = 'tables'")  # a link to a section leaves what was chosen
    other.page.wait_for_function("location.hash === '#tables,training=1'")
    other.page.select_option("#training", "0")
    assert "#" not in other.page.url
    other.page.evaluate("location.hash = 'averaging,training=2'")  # a link without the slider moves it back
    other.slide(d=200)
    other.page.evaluate("location.hash = 'separation,training=2'")
    other.page.wait_for_function("document.getElementById('slider-d').value !== '200'")
    assert other.page.input_value("#training") == "2"
    other.page.click("#reset-separation")  # and the other way round
    assert other.page.input_value("#training") == "0"
    other.slide(d=200)
    other.page.select_option("#training", "2")
    other.page.click("#reset-separation")
    assert other.page.url.endswith("#separation,d=200")
    other.page.evaluate("location.hash = 'averaging%2Cd=200'")  # as some programs write it
    other.page.wait_for_function("document.getElementById('slider-d').value === '200'")
    assert other.page.url.endswith("#averaging%2Cd=200")
    other.page.evaluate("location.hash = '100%'")
    other.page.reload()
    assert other.page.input_value("#slider-ratio") == opened.page.input_value("#slider-ratio")
    assert other.said == []
    other.context.close()


def test_no_number_of_an_axis_touches_its_label(browser, drawn):
    """The angles of the second explorer reach down to 0.0003; on a phone letters are largest."""
    phone = Page(browser, drawn / "report.html", **PHONE)
    script = """() => {
        const plot = document.getElementById('separation-plot'), slider = document.getElementById('slider-ratio'), touching = [];
        for (const option of document.getElementById('training').options) {
            document.getElementById('training').value = option.value;
            for (let at = Number(slider.min); at <= Number(slider.max); at++) {
                slider.value = at;
                slider.dispatchEvent(new Event('input'));
                const [, label] = Array.from(plot.querySelectorAll('.label'), (one) => one.getBoundingClientRect());
                for (const tick of plot.querySelectorAll('.tick')) {
                    const box = tick.getBoundingClientRect();
                    const beside = box.bottom > label.top && box.top < label.bottom;
                    if (beside && box.left < label.right) touching.push(`${option.value} ${at} ${tick.textContent}`);
                }
            }
        }
        return touching;
    }"""
    assert phone.page.evaluate(script) == []
    phone.context.close()


def test_the_reference_value_of_the_theory(opened):
    """d = 20, ||mu|| = 2, sigma = 1, eps = 0.5, n = 5: 0.8162201 at c = 1."""
    chosen = opened.slide(c=500)
    assert chosen == {"d": 20, "norm": 2, "sigma": 1, "eps": 0.5, "c": 1, "n": 5, "angle": 0}
    assert opened.text("out-accuracy") == "0.8162"
    assert opened.text("out-worth") == "1.00 real samples"


def test_the_address_keeps_what_was_chosen(opened, browser, drawn):
    chosen = opened.slide(d=200, eps=700, angle=300)
    address = opened.page.url
    other = Page(browser, drawn / "report.html")
    other.page.goto(address)
    other.page.reload()
    assert other.values() == chosen
    assert other.text("out-accuracy") == opened.text("out-accuracy")
    other.page.click("#reset")
    assert "#" not in other.page.url
    assert other.values()["d"] == 20
    for wrong in ("#averaging,d=x,q=3", "#averaging,", "#nothing"):
        other.page.goto(f"{(drawn / 'report.html').as_uri()}{wrong}")
        other.page.reload()
        assert other.values()["d"] == 20
    assert other.said == []
    other.context.close()


def test_the_verdicts_are_those_of_the_designs(opened):
    """Each row against comparisons.csv, read here another way."""
    rows = opened.page.eval_on_selector_all("#summary tr", "all => all.map((r) => Array.from(r.cells, (c) => c.textContent))")
    columns = rows[0][1:]
    rows = [row for row in rows if row[0]]
    shown = {(row[0], data): cell for row in rows for data, cell in zip(columns, row[1:], strict=True) if cell}
    assert len(shown) == len(CLAIMS)
    sides = {
        "class-anchored 0.1": "main/anchored-0.1",
        "away from the anchors 0.1": "main/anchored-reversed-0.1",
        "away from the anchors auto": "main/anchored-reversed-auto",
        "unguided": "main/unguided",
        "unguided (soft labels)": "soft/unguided",
        "twice as many unguided (soft labels)": "soft-4000/unguided",
        "twice as many unguided": "more/unguided",
        "InfoNCE 0.3 (model without labels, most confident)": "unconditional-confident/infonce-0.3",
        "unguided (model without labels, most confident)": "unconditional-confident/unguided",
        "unguided (most confident)": "confident/unguided",
        "InfoNCE 0.3 (soft labels)": "soft/infonce-0.3",
        "InfoNCE 0.3 (most confident)": "confident/infonce-0.3",
        "hard negatives 0.3 (most confident)": "confident/hard-negative-0.3",
        "unguided (labels as drawn)": "drawn/unguided",
        "particle 0.1 (soft labels)": "soft/particle-0.1",
        "particle 0.05 (soft labels)": "soft/particle-0.05",
        "particle auto (soft labels)": "soft/particle-auto",
        "particle auto (labels as drawn)": "drawn/particle-auto",
        "unguided from hotter noise (soft labels)": "soft-hot/unguided",
        "real images alone": "drawn/real",
    }
    for claim, data, design, a, b, attack in CLAIMS:
        with (REFERENCE / design / "comparisons.csv").open() as stream:
            found = [one for one in csv.DictReader(stream) if (one["a"], one["b"]) == (sides[a], sides[b])]
        one = next(one for one in found if one["attack"] == attack.lower())
        low, high = float(one["low_of_all"]), float(one["high_of_all"])
        numbers = f"{100 * float(one['difference']):+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]".replace("-", "−")
        said = "gains" if low > 0 else "loses" if high < 0 else "not detected"
        assert shown[claim, data] == f"{said} {numbers}"


def test_the_keyboard_is_enough(opened):
    """Tab reaches the skip link, every slider, the button and the headings of the tables; arrows move, Enter sorts and resets."""
    reached = set()
    for _ in range(60):
        opened.page.keyboard.press("Tab")
        reached.add(opened.page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"skip", "reset", *(f"slider-{name}" for name, _, _ in SLIDERS)} <= reached
    opened.page.focus("#slider-eps")
    before = opened.text("out-accuracy")
    for _ in range(18):
        opened.page.keyboard.press("ArrowRight")
    assert opened.values()["eps"] == pytest.approx(0.68)
    assert opened.page.get_attribute("#slider-eps", "aria-valuetext") == "0.68"
    assert float(opened.text("out-accuracy")) < float(before)
    opened.page.focus("#slider-n")
    for n in (6, 7, 6, 5):  # the next number at every press, though many positions of the slider mean the same one
        opened.page.keyboard.press("ArrowUp" if n == 7 or opened.values()["n"] < n else "ArrowLeft")
        assert opened.values()["n"] == n
    opened.page.focus("#reset")
    opened.page.keyboard.press("Enter")
    assert opened.values()["eps"] == pytest.approx(0.5)
    assert opened.text("out-accuracy") == before


def column(opened, place):
    cells = opened.page.eval_on_selector_all(f"#table-images tbody td:nth-child({place})", "all => all.map((c) => c.dataset.key)")
    return [float(cell) for cell in cells if cell]


def test_tables_are_sorted_by_their_headings(opened):
    opened.page.evaluate("location.hash = 'images'")  # a link to what is folded unfolds it
    opened.page.wait_for_selector("#table-images", state="visible")
    heading = "#table-images th:nth-child(3) button"
    opened.page.focus(heading)
    opened.page.keyboard.press("Enter")
    assert column(opened, 3) == sorted(column(opened, 3))
    opened.page.click(heading)
    assert column(opened, 3) == sorted(column(opened, 3), reverse=True)
    assert opened.page.get_attribute("#table-images th:nth-child(3)", "aria-sort") == "descending"


def test_a_search_leaves_the_rows_that_have_every_word(opened):
    opened.page.evaluate("location.hash = 'claims'")
    rows = opened.page.locator("#table-claims tbody tr")
    texts = [text.lower() for text in rows.all_inner_texts()]
    box = "input[aria-controls=table-claims]"
    for words in ("Particle digits-confirm", "mnist", "-0.0"):  # a keyboard's minus
        opened.page.fill(box, words)
        left = [text for text in texts if all(word in text.replace("−", "-") for word in words.lower().split())]
        assert [text.lower() for text in rows.locator("visible=true").all_inner_texts()] == left
        assert opened.page.inner_text(f"label:has({box}) output") == f"{len(left)} of {len(texts)} rows"
        assert 0 < len(left) < len(texts)
    opened.page.fill(box, "nothing has this")
    assert opened.page.inner_text(f"label:has({box}) output") == f"none of {len(texts)} rows has all of it"
    opened.page.fill(box, "")
    assert rows.locator("visible=true").count() == len(texts)


def test_the_contents_mark_the_section_that_is_read(opened):
    links = opened.page.eval_on_selector_all("nav a", "all => all.map((one) => one.hash.slice(1))")
    for name in links[:-1]:
        opened.page.evaluate(f"document.getElementById('{name}').scrollIntoView({{behavior: 'instant'}})")
        opened.page.wait_for_function(f"document.querySelector('nav a[aria-current]').hash === '#{name}'")
    opened.page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    opened.page.wait_for_function(f"document.querySelector('nav a[aria-current]').hash === '#{links[-1]}'")
    assert opened.page.locator("nav a[aria-current]").count() == 1


def touch(opened, x, y, to_x, to_y):
    """A finger that goes down, moves on in ten steps, and leaves."""
    session = opened.context.new_cdp_session(opened.page)
    places = [(x + (to_x - x) * i / 10, y + (to_y - y) * i / 10) for i in range(11)]
    for kind, points in [("touchStart", places[:1]), *(("touchMove", [place]) for place in places[1:]), ("touchEnd", [])]:
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": a, "y": b} for a, b in points]})
        opened.page.wait_for_timeout(20)
    opened.page.wait_for_timeout(300)


@pytest.mark.parametrize(("name", "section"), [("sigma", "averaging"), ("ratio", "separation")])
def test_a_finger_that_scrolls_over_a_slider_leaves_it(browser, drawn, name, section):
    """A finger along the slider moves it; one that scrolls the page leaves it and the address, wherever on the slider it starts."""
    opened = Page(browser, drawn / "report.html", **PHONE)
    opened.page.evaluate("location.hash = 'claims'")
    opened.page.wait_for_timeout(300)
    slider = opened.page.locator(f"#slider-{name}")
    slider.evaluate("one => { one.scrollIntoView({ block: 'end', behavior: 'instant' }); scrollBy(0, 60); }")
    box, before = slider.bounding_box(), slider.input_value()
    middle, far = box["y"] + box["height"] / 2, box["x"] + 0.9 * box["width"]
    at = opened.page.evaluate("scrollY")
    touch(opened, far, middle, far, middle - 150)
    assert opened.page.evaluate("scrollY") > at + 50
    assert slider.input_value() == before
    assert opened.page.url.endswith("#claims")
    opened.page.evaluate(f"scrollTo(0, {at})")
    opened.page.wait_for_timeout(200)
    touch(opened, far, middle, far - 100, middle)
    assert slider.input_value() != before
    assert opened.page.url.split("#")[1].startswith(f"{section},{name}=")
    opened.context.close()


def test_on_a_phone_each_row_of_a_table_is_a_card(browser, drawn):
    """Nothing scrolls inside the page, and every value has its heading before it."""
    opened = Page(browser, drawn / "report.html", **PHONE)
    opened.page.eval_on_selector_all("details", "all => all.forEach((one) => { one.open = true; })")
    inner = "all => all.filter((one) => one.scrollWidth > one.clientWidth + 1 || one.scrollHeight > one.clientHeight + 1).length"
    assert opened.page.eval_on_selector_all(".rows", inner) == 0
    said = "all => all.map((one) => getComputedStyle(one, '::before').content.replaceAll('\"', ''))"
    headings = [one.rstrip() for one in opened.page.locator("#table-images th").all_inner_texts()]
    assert opened.page.eval_on_selector_all("#table-images tbody tr:first-child td", said)[1:] == headings[1:]
    opened.context.close()


def test_a_link_to_what_is_folded_shows_its_title(browser, drawn):
    """On a phone: below the contents, which stay at the top, the whole title can be read."""
    opened = Page(browser, drawn / "report.html", **PHONE)
    folded = opened.page.eval_on_selector_all("details.more h3[id]", "all => all.map((one) => one.id)")
    assert len(folded) > 10
    for name in folded[:: len(folded) // 6]:
        opened.page.evaluate(f"location.hash = '{name}'")
        opened.page.wait_for_selector(f"#{name}", state="visible")
        opened.page.wait_for_timeout(300)
        top = f"document.getElementById('{name}').closest('details').querySelector('summary').getBoundingClientRect().top"
        contents = opened.page.evaluate("document.querySelector('nav').getBoundingClientRect().bottom")
        assert contents <= opened.page.evaluate(top) + 1, name
    opened.context.close()


def test_a_link_unfolds_its_target_each_time(opened):
    """Also where the address was that of the link before, so that it does not change."""
    for name in ("frontier", "made-gaussian_mixture"):
        for _ in range(2):
            opened.page.evaluate(f"document.querySelector('a[href=\"#{name}\"]').click()")
            fold = f"document.getElementById('{name}').closest('details')"
            opened.page.wait_for_function(f"{fold}.open")
            opened.page.evaluate(f"{fold}.open = false")


def test_headings_of_a_table_stay_in_sight(opened):
    """Scrolled down by a third and to the right end: the headings and the names of the rows are where they were."""
    opened.page.evaluate("location.hash = 'claims'")
    opened.page.wait_for_selector("#table-claims", state="visible")
    before, after = (
        opened.page.eval_on_selector_all(
            "#table-claims th:first-child, #table-claims td:first-child",
            f"""([head, ...names]) => {{
                const box = head.closest(".wide");
                box.scrollTo({share} * box.scrollWidth, {share} * box.scrollHeight);
                const [place, one, other] = [box, head, names[9]].map((e) => e.getBoundingClientRect());
                return [one.top - place.top, one.left - place.left, other.left - place.left];
            }}""",
        )
        for share in (0, 1 / 3)
    )
    assert after == pytest.approx([0, *before[1:]], abs=1)


def test_a_phone_shows_all_of_it_without_scrolling_sideways(browser, drawn):
    opened = Page(browser, drawn / "report.html", **PHONE)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 375
    outside = """all => all.filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.wide'))
                         .map((e) => e.outerHTML.slice(0, 80))"""
    assert opened.page.eval_on_selector_all("main *", outside) == []
    sizes = opened.page.eval_on_selector_all(".controls input", "all => all.map((e) => e.getBoundingClientRect().height)")
    assert min(sizes) >= 28
    assert opened.said == []
    opened.context.close()


@pytest.mark.parametrize("width", [375, 1200])
def test_what_scrolls_sideways_says_so(browser, drawn, width):
    """And nothing else: of all tables and pictures, unfolded, at the width of a phone and of a desk."""
    opened = Page(browser, drawn / "report.html", viewport={"width": width, "height": 900})
    opened.page.eval_on_selector_all("details", "all => all.forEach((one) => { one.open = true; })")
    opened.page.wait_for_timeout(500)
    script = """all => all.map((one) => [one.getAttribute("aria-label"), one.scrollWidth > one.clientWidth + 1,
                                         getComputedStyle(one, "::before").content.includes("scroll sideways")])"""
    found = opened.page.eval_on_selector_all(".wide", script)
    assert {scrolls for _, scrolls, _ in found} == {True, False}
    assert [name for name, scrolls, said in found if scrolls != said] == []
    to_the_end = """one => { one.scrollLeft = one.scrollWidth; return new Promise((done) => setTimeout(() =>
                             done(getComputedStyle(one, "::before").content), 300)); }"""
    assert "scroll back" in opened.page.locator(".wide.scrolls").first.evaluate(to_the_end)
    opened.context.close()


def test_a_phone_shows_every_drawing_whole(browser, drawn):
    """Not reduced and not scrolled: drawn again, one panel below the other. Photographs scroll, so that their pixels can be seen."""
    opened = Page(browser, drawn / "report.html", **PHONE)
    opened.page.eval_on_selector_all("details", "all => all.forEach((one) => { one.open = true; })")
    opened.page.eval_on_selector_all("img", "all => Promise.all(all.map((one) => { one.loading = 'eager'; return one.decode(); }))")
    script = """all => all.map((one) => [one.closest(".wide").scrollWidth > one.closest(".wide").clientWidth + 1,
                                         one.naturalWidth, one.clientWidth])"""
    shown = opened.page.eval_on_selector_all(".drawing img", script)
    assert len(shown) > 40
    assert [one for one in shown if one[0]] == []
    assert min(width for *_, width in shown) > 290
    assert max(natural for _, natural, _ in shown) <= 800  # 4 inches
    notes = opened.page.locator(".stacked")
    assert notes.count() == notes.locator("visible=true").count() > 20  # which panel "left" is
    assert opened.page.locator("figure:has(#price_gain) .stacked").count() == 0  # one panel
    opened.context.close()


def test_the_words_of_the_glossary_stand_in_the_report(opened):
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = re.findall(r"^- \*\*(.+?)\*\*:", page, re.MULTILINE)
    assert opened.page.eval_on_selector_all("dl.words dt", "all => all.map((one) => one.textContent)") == words
    meanings = opened.page.eval_on_selector_all("dl.words dd", "all => all.map((one) => one.textContent)")
    assert all(meanings)
    assert not any(mark in meaning for meaning in meanings for mark in ("](", "`", "**"))


def test_a_figure_that_a_caption_names_is_a_link_with_its_title(opened):
    link = opened.page.locator("figcaption a[href='#exchange_rate']")
    assert link.text_content() == opened.page.text_content("#exchange_rate").rstrip("#").strip()
    assert opened.page.locator("figcaption", has_text=re.compile(r"figure [a-z0-9]+_[a-z0-9]+")).count() == 0


def test_a_phone_shows_the_verdicts_whole(browser, drawn):
    opened = Page(browser, drawn / "report.html", **PHONE)
    assert opened.page.eval_on_selector("#summary .wide:has(table)", "one => one.scrollWidth <= one.clientWidth + 1")
    opened.context.close()


def contrast(one, two):
    """WCAG contrast of two colours 'rgb(r, g, b)'."""
    shades = []
    for colour in (one, two):
        channels = [int(v) / 255 for v in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        shades.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(shades) + 0.05) / (min(shades) + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_by_day_and_by_night(browser, drawn, scheme):
    opened = Page(browser, drawn / "report.html", color_scheme=scheme)
    style = "(e) => { const s = getComputedStyle(e); return [s.color, s.backgroundColor, s.stroke]; }"
    _, page, _ = opened.page.eval_on_selector("body", style)
    _, card, _ = opened.page.eval_on_selector(".explorer", style)
    assert (contrast(page, "rgb(255, 255, 255)") < 1.1) == (scheme == "light")
    for selector in ("body", "h1", "nav a", ".made", ".results dt", "figcaption"):
        assert contrast(opened.page.eval_on_selector(selector, style)[0], card) > 4.5, selector
    for selector in (".curve.synthetic", ".curve.real", ".level.optimum"):
        assert contrast(opened.page.eval_on_selector(f"#explorer-plot {selector}", style)[2], card) > 3, selector
    opened.context.close()


def test_every_figure_has_caption_command_and_text_for_those_who_do_not_see_it(drawn):
    page = (drawn / "report.html").read_text(encoding="utf-8")
    for entry in entries():
        assert html.escape(entry.figure.title) in page
        assert all(
            part in page for part in FIGURE_NAMED.split(html.escape(entry.figure.caption))[::2]
        )  # between links to other figures
        assert f"<code>drawn/{entry.name}.csv</code>" in page
        for name in {experiment_of(path).name for path in entry.figure.inputs}:  # a link to the command
            assert f'<a href="#made-{name}">' in page
            assert f'<details id="made-{name}"><summary>{name}: <code><span>python</span> ' in page
        if not entry.is_table:
            assert f'<img alt="{html.escape(entry.figure.title)}' in page
    assert "seeds 0 to 2" in page
    assert not re.search(r'(src|href)="https?:', page)


def test_tables_say_the_same_in_csv_markdown_latex_and_the_page(drawn):
    for entry in entries():
        if not entry.is_table:
            continue
        rows = entry.module.rows(Files(REFERENCE))
        with (drawn / "drawn" / f"{entry.name}.csv").open(newline="", encoding="utf-8") as stream:
            header, *written = csv.reader(stream)
        names, lines = csv_columns(entry.module.HEADER, rows)
        assert header == names
        for line, expected in zip(written, lines, strict=True):
            for cell, value in zip(line, expected, strict=True):
                assert cell == (repr(float(value)) if isinstance(value, float) else str(value))
        shown = (drawn / "drawn" / f"{entry.name}.md").read_text(encoding="utf-8").splitlines()[2:]
        for line, row in zip(shown, rows, strict=True):
            assert line.strip("| ").split(" | ")[0] == text_of(row[0])
            assert [cell.strip() for cell in line[1:-1].split("|")] == [text_of(cell) for cell in row]
        tex = (drawn / "drawn" / f"{entry.name}.tex").read_text(encoding="utf-8")
        assert tex.count(r"\\") == len(rows) + 1
        assert all(
            line.count(" & ") == len(header_of) - 1
            for line in tex.splitlines()
            if line.endswith(r"\\")
            for header_of in [entry.module.HEADER]
        )


@pytest.mark.parametrize(
    ("summary", "told"),
    [
        ({"settings": {"seed": 0, "seeds": 5}}, 5),
        ({"settings": {"seeds": 20, "parts": ["value"]}, "value": {"seeds": 8}}, 8),  # this part takes fewer than it was asked for
        ({"settings": {"seeds": 20, "parts": ["value", "windows"]}, "value": {"seeds": 8}}, 20),
        ({"settings": {"seed": 3}}, None),
    ],
)
def test_a_part_tells_the_seeds_that_it_took(summary, told):
    assert seeds_of(summary) == told


def test_the_kept_study_of_values_tells_the_seeds_of_its_rows():
    with (REFERENCE / "guided_value" / "value.csv").open(newline="", encoding="utf-8") as stream:
        counts = {int(row["seeds"]) for row in csv.DictReader(stream)}
    assert counts == {json.loads((REFERENCE / "provenance.json").read_text(encoding="utf-8"))["guided_value"]["seeds"]}


def test_cells():
    spread, gain = Spread(0.6658, sd=0.0123), Spread(-0.0808, low=-0.1122, high=-0.0493)
    assert text_of(spread) == "0.6658 (0.0123)"
    assert text_of(gain) == "-0.0808 [-0.1122, -0.0493]"
    assert text_of(Spread(float("nan"))) == ""
    assert markdown(("a|b", "c"), [["x", spread]]) == "| a\\|b | c |\n| --- | --- |\n| x | 0.6658 (0.0123) |\n"
    assert r"50\% \& more \_x & $\lambda$ = 0.3 \\" in latex(("50% & more _x", "λ = 0.3"), [])
    assert csv_columns(("m", "r", "g"), [["x", spread, gain]]) == (
        ["m", "r", "r sd", "g", "g low", "g high"],
        [["x", 0.6658, 0.0123, -0.0808, -0.1122, -0.0493]],
    )
    assert table.sort_key(gain) == -0.0808
