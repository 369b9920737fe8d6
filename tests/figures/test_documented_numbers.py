"""Numbers in the tables of the README and of docs/results stand in the csv files that the page names: <!-- numbers: NAME NAME -->."""

import csv
import math
import re

import numpy as np
import pytest
from scipy import stats

from figures.experiments import REFERENCE
from figures.image_figures import pipeline, pipeline_gtsrb, pipeline_mnist, predicted_worth, where_guidance_gains
from figures.inputs import Files
from figures.tables import attack_parts
from tests.figures.conftest import ROOT
from theory import ProportionalLaw

MARK = re.compile(r"<!-- numbers: ([\w ]+) -->")
NUMBER = re.compile(r"(?<![\w.])[+−-]?(\d+\.\d{3,})")
PAGES = [ROOT / "README.md", *(ROOT / "docs" / "results" / f"{name}.md" for name in ("digits", "photographs"))]


def claimed(page):
    """(names of csv files, number as written) of every number with three decimals in a table after a mark, up to the next heading."""
    names: list[str] = []
    found = []
    for line in page.read_text(encoding="utf-8").splitlines():
        if mark := MARK.match(line):
            names = mark.group(1).split()
        elif line.startswith("#"):
            names = []
        elif names and line.startswith("|"):
            found += [(tuple(names), number) for number in NUMBER.findall(line)]
    return found


def numbers_of(path):
    """Every number of a csv."""
    with path.open(newline="", encoding="utf-8") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    found = []
    for cell in cells:
        try:
            found.append(abs(float(cell)))
        except ValueError:
            continue
    return np.array([value for value in found if np.isfinite(value)])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_number_of_a_page_stands_in_its_tables(page, drawn):
    tables = {name: numbers_of(drawn / "drawn" / f"{name}.csv") for names, _ in claimed(page) for name in names}
    assert len(claimed(page)) > 20
    for names, text in claimed(page):
        digits = len(text.partition(".")[2])
        near = min(float(np.abs(tables[name] - float(text)).min()) for name in names)
        assert near <= 0.5 * 10**-digits + 1e-9, f"{text} is in none of {names}"


def test_a_changed_number_is_noticed(drawn):
    """Four digits of a mean leave little room: most numbers moved by one in the last digit are found in no table."""
    table = numbers_of(drawn / "drawn" / "pipeline.csv")
    moved = [float(text) + 0.0001 for names, text in claimed(ROOT / "docs" / "results" / "digits.md") if names == ("pipeline",)]
    assert np.mean([np.abs(table - value).min() > 0.00005 for value in moved]) > 0.5


WORTH = re.compile(r"worth (\d\.\d)(?: \[(\d\.\d), (\d\.\d)\])?")
SAYING = [
    ROOT / name
    for name in (
        "docs/results/summary.md",
        "docs/guidance.md",
        "docs/paper.md",
        "docs/results/digits.md",
        "figures/report/page.html",
    )
]


def test_what_one_image_is_said_to_be_worth_is_an_exchange_rate(drawn):
    """Every "worth 3.7 [2.8, 5.9]" or "worth 3.7" in running text."""
    with (drawn / "drawn" / "exchange_rate.csv").open(newline="", encoding="utf-8") as stream:
        rates = [
            [f"{float(row[key]):.1f}" for key in ("y", "low", "high")] for row in csv.DictReader(stream) if "worth" in row["panel"]
        ]
    for page in SAYING:
        said = WORTH.findall(page.read_text(encoding="utf-8").replace("\n", " "))
        assert said, page
        for rate, *ends in said:
            assert any(rate == one[0] and (not ends[0] or ends == one[1:]) for one in rates), f"{page}: worth {rate} {ends}"


POINTS = re.compile(r"(\*\*)?([+−]\d+\.\d)(?:\*\*)? \[([+−]\d+\.\d), ([+−]\d+\.\d)\]")
"""Bold or not, gain, low, high."""


AS_PUBLISHED = "InfoNCE 0.3 (model without labels, most confident)", "unguided (model without labels, most confident)"
UNGUIDED, DRAWN, CONFIDENT = "unguided (soft labels)", "unguided (labels as drawn)", "unguided (most confident)"
TWICE, HOT = "twice as many unguided (soft labels)", "unguided from hotter noise (soft labels)"
PARTICLE = {"digits": "particle 0.1 (soft labels)", "mnist": "particle 0.05 (soft labels)", "gtsrb": "particle 0.1 (soft labels)"}
EVIDENCE = (
    ("gtsrb-default", DRAWN, "real images alone"),
    ("digits-evidence", "twice as many unguided", "unguided"),
    ("gtsrb-confirm", TWICE, UNGUIDED),
    ("digits-pipeline", CONFIDENT, DRAWN),
    ("mnist-pipeline", CONFIDENT, DRAWN),
    ("gtsrb-pipeline", CONFIDENT, DRAWN),
    ("digits-rivals", "particle auto (soft labels)", UNGUIDED),
    ("mnist-rivals", "particle auto (soft labels)", UNGUIDED),
    ("gtsrb-rivals", "particle auto (soft labels)", UNGUIDED),
    ("digits-rivals", "particle auto (soft labels)", HOT),
    ("mnist-rivals", "particle auto (soft labels)", HOT),
    ("gtsrb-rivals", "particle auto (soft labels)", HOT),
    ("digits-rivals", "particle auto (soft labels)", TWICE),
    ("mnist-rivals", "particle auto (soft labels)", TWICE),
    ("gtsrb-rivals", "particle auto (soft labels)", TWICE),
    *((f"{data}-confirm", guided, UNGUIDED) for data, guided in PARTICLE.items()),
    ("digits-evidence", "class-anchored 0.1", "unguided"),
    ("mnist-report", "class-anchored 0.1", "unguided"),
    ("gtsrb-report", "class-anchored 0.1", "unguided"),
    ("digits-pipeline", *AS_PUBLISHED),
    ("mnist-pipeline", *AS_PUBLISHED),
    ("digits-pipeline", "InfoNCE 0.3 (most confident)", CONFIDENT),
    ("mnist-pipeline", "InfoNCE 0.3 (most confident)", CONFIDENT),
    ("gtsrb-pipeline", "InfoNCE 0.3 (most confident)", CONFIDENT),
    ("digits-pipeline", "hard negatives 0.3 (most confident)", CONFIDENT),
    ("mnist-pipeline", "hard negatives 0.3 (most confident)", CONFIDENT),
    ("gtsrb-pipeline", "hard negatives 0.3 (most confident)", CONFIDENT),
    ("digits-pipeline", "InfoNCE 0.3 (soft labels)", UNGUIDED),
    ("mnist-pipeline", "InfoNCE 0.3 (soft labels)", UNGUIDED),
    ("gtsrb-pipeline", "InfoNCE 0.3 (soft labels)", UNGUIDED),
    ("digits-default", "particle auto (soft labels)", UNGUIDED),
    ("mnist-default", "particle auto (soft labels)", UNGUIDED),
    ("gtsrb-default", "particle auto (labels as drawn)", DRAWN),
    ("gtsrb-confirm", "InfoNCE 0.3 (soft labels)", UNGUIDED),
    ("gtsrb-more", "unguided", "real images alone"),
    ("gtsrb-report", "unguided", "real images alone"),
    ("cifar10-report", "unguided", "real images alone"),
)
"""The comparison of each cell of the table of all results, row by row, and of what the page says of CIFAR-10."""

README = (*EVIDENCE[1:15], *EVIDENCE[18:21], *EVIDENCE[29:32])
"""Of each cell of the README's table."""


PAPER = (
    ("digits-pipeline", *AS_PUBLISHED),
    ("digits-pipeline", "InfoNCE 0.3 (most confident)", "unguided (most confident)"),
    ("digits-pipeline", "hard negatives 0.3 (most confident)", "unguided (most confident)"),
    ("mnist-pipeline", *AS_PUBLISHED),
    ("mnist-pipeline", "InfoNCE 0.3 (most confident)", "unguided (most confident)"),
    ("mnist-pipeline", "hard negatives 0.3 (most confident)", "unguided (most confident)"),
    ("gtsrb-pipeline", "InfoNCE 0.3 (most confident)", "unguided (most confident)"),
    ("gtsrb-pipeline", "hard negatives 0.3 (most confident)", "unguided (most confident)"),
    ("mnist-pipeline", "InfoNCE 0.3 (soft labels)", "unguided (soft labels)"),
    ("digits-paper", "InfoNCE 0.3, 200 ≤ t < 600", "unguided"),
    ("digits-evidence", "InfoNCE 0.3", "unguided"),
    ("digits-evidence", "class-anchored 0.1", "unguided"),
    ("digits-pipeline", "InfoNCE 0.3 (soft labels)", "unguided (soft labels)"),
    ("digits-confirm", "particle 0.1 (soft labels)", "unguided (soft labels)"),
    ("mnist-report", "InfoNCE auto", "unguided"),
    ("mnist-report", "class-anchored 0.1", "unguided"),
    ("mnist-confirm", "particle 0.05 (soft labels)", "unguided (soft labels)"),
    ("mnist-default", "particle auto (soft labels)", "unguided (soft labels)"),
    ("gtsrb-confirm", "InfoNCE 0.3 (soft labels)", "unguided (soft labels)"),
    ("gtsrb-confirm", "particle 0.1 (soft labels)", "unguided (soft labels)"),
    ("gtsrb-rivals", "particle auto (soft labels)", "unguided (soft labels)"),
    ("gtsrb-default", "particle auto (labels as drawn)", "unguided (labels as drawn)"),
)
"""The comparisons of the table on the page of the paper, row by row."""


@pytest.mark.parametrize(("figure", "said"), [(pipeline, "found"), (pipeline_mnist, "not found"), (pipeline_gtsrb, "not found")])
def test_the_claim_is_said_to_do_what_the_interval_says(figure, said):
    assert f"the paper's claim is {said}" in figure.finding(Files(REFERENCE))


def test_a_pipeline_without_real_images_alone_or_a_model_without_labels_is_drawn_and_summed_up(tmp_path):
    """As on photographs, where neither was run."""
    kept = ("drawn", "pseudo", "confident", "soft", "confident-more")
    with (REFERENCE / pipeline.TABLE).open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["run"] in kept and row["method"] != "real"]
    path = tmp_path / pipeline.TABLE
    path.parent.mkdir()
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    some, all_of = (pipeline.numbers(Files(folder)) for folder in (tmp_path, REFERENCE))
    for panel, count in ((pipeline.LEFT, 19), (pipeline.RIGHT, 15)):
        names = [name for name in all_of.names(panel) if name.partition(": ")[0] in {pipeline.TREATMENTS[run] for run in kept[:4]}]
        names = [name for name in names if "hotter" not in name and ("twice" not in name or "confident" in name)]
        assert sorted(some.names(panel)) == sorted(names)
        assert len(names) == count
        for name in names:
            for part in ("y", "low", "high"):
                np.testing.assert_array_equal(*(getattr(numbers.series(panel, name), part) for numbers in (some, all_of)))
    assert pipeline.draw(some).axes[0].get_xlabel() == "robust accuracy"
    said = pipeline.finding(Files(tmp_path))
    assert "Guidance then adds +0.0351 [" in said
    assert "with a model that knows the labels; the paper's model without labels was not run: the paper's claim is found" in said


def planned(drawn):
    """{(design, comparison): (difference, and its interval of all)} in points; at the radius of training where there are several."""
    known = {}
    for name in ("claims_photographs", "claims"):
        with (drawn / "drawn" / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
            for row in reversed(list(csv.DictReader(stream))):
                if not row["attack"].startswith("AutoAttack"):
                    key = row["design"], row["comparison"]
                    known[key] = [100 * float(row[column]) for column in ("difference", "difference low", "difference high")]
    return known


@pytest.mark.parametrize(("page", "comparisons"), [("README.md", README), ("docs/results/summary.md", EVIDENCE)])
def test_a_gain_is_bold_where_its_interval_leaves_out_zero(drawn, page, comparisons):
    known = planned(drawn)
    said = POINTS.findall((ROOT / page).read_text(encoding="utf-8"))
    ends = [known[design, f"{a} − {b}"][1:] for design, a, b in comparisons]
    assert [bool(bold) for bold, *_ in said] == [not low < 0 < high for low, high in ends]


def test_the_gains_of_the_readme_of_all_results_and_of_the_page_of_the_paper_are_those_of_the_claims(drawn):
    """Each "+2.5 [+1.6, +3.3]" is its planned difference and the interval of all."""
    known = planned(drawn)
    pages = [(ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/results/summary.md")]
    said = [texts for page in pages for texts in POINTS.findall(page)]
    table = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8").partition("### More robust")[2].partition("\n## ")[0]
    for (design, a, b), (_, *texts) in zip((*README, *EVIDENCE, *PAPER), (*said, *POINTS.findall(table)), strict=True):
        values = [float(text.replace("−", "-")) for text in texts]
        assert values == pytest.approx(known[design, f"{a} − {b}"], abs=0.05 + 1e-9), (design, a, b)


def test_how_far_apart_the_attacks_are_is_what_the_sets_show():
    """PGD-20 minus APGD-CE: mean over all sets and seeds of a design that have both on the same images; the rest as in its table."""
    table = (ROOT / "docs" / "evaluate.md").read_text(encoding="utf-8").partition("## How far apart")[2].partition("\n## ")[0]
    first, second, third = (re.findall(r"\d+\.\d", line) for line in table.splitlines() if line.startswith("| by "))
    found = []
    for design in ("digits-confirm", "mnist-confirm", "gtsrb-confirm"):
        sets: dict[tuple[str, ...], dict[str, tuple[str, float]]] = {}
        with (REFERENCE / design / "sweep.csv").open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                one = sets.setdefault((row["run"], row["method"], row["seed"]), {})
                one[row["attack"]] = row["images"], float(row["robust_accuracy"])
        both = [(one["pgd-20"], one["apgd-ce"]) for one in sets.values() if {"pgd-20", "apgd-ce"} <= one.keys()]
        assert all(weak[0] == strong[0] for weak, strong in both)
        found.append(f"{100 * np.mean([weak[1] - strong[1] for weak, strong in both]):.1f}")
    assert first == found
    taken = [(row[-1], row[5].mean) for row in attack_parts.rows(Files(REFERENCE))]
    assert set(second) == {f"{100 * value:.1f}" for design, value in taken if design == "digits-apgd"}
    whole = [100 * value for design, value in taken if design == "digits-evidence"]
    (signs,) = [100 * value for design, value in taken if design == "gtsrb-rivals"]
    assert third == [f"{min(whole):.1f}", f"{max(whole):.1f}", f"{signs:.1f}"]


FIXED = [
    (f"{data}-confirm", f"soft/particle-{scale}", "soft/unguided")
    for data, scale in (("digits", 0.1), ("mnist", 0.05), ("gtsrb", 0.1))
]
AUTO = [
    ("digits-default", "soft/particle-auto", "soft/unguided"),
    ("mnist-default", "soft/particle-auto", "soft/unguided"),
    ("gtsrb-rivals", "soft/particle-auto", "soft/unguided"),
]
DRAWN_AUTO = ("gtsrb-default", "drawn/particle-auto", "drawn/unguided")
HOT_DESIGNS = ("digits-confirm", "mnist-confirm", "mnist-default", "mnist-rivals", "gtsrb-confirm", "gtsrb-rivals")
TWICE_DESIGNS = ("digits-confirm", "mnist-confirm", "gtsrb-confirm", "gtsrb-rivals")
CHOICES = (
    [(f"{data}-confirm", "soft/unguided", "drawn/unguided") for data in ("digits", "mnist", "gtsrb")],
    [(design, "soft-hot/unguided", "soft/unguided") for design in HOT_DESIGNS],
    [(design, "soft-4000/unguided", "soft/unguided") for design in TWICE_DESIGNS],
    FIXED,
    [*AUTO, DRAWN_AUTO],
    [*(one for both in zip(FIXED, AUTO, strict=True) for one in both), DRAWN_AUTO],
)
"""What the rows of the table on the page of guidance compare; the last by clean accuracy."""


def test_what_each_choice_did_is_the_paired_difference_with_students_interval():
    table = (ROOT / "docs" / "guidance.md").read_text(encoding="utf-8").partition("What each choice did")[2].partition("*Seeds")[0]
    said = [POINTS.findall(line) for line in table.splitlines() if POINTS.search(line)]
    assert [len(row) for row in said] == [len(row) for row in CHOICES]
    columns = [column for row in CHOICES for column in ["clean_accuracy" if row is CHOICES[-1] else "robust_accuracy"] * len(row)]
    every = zip((one for row in CHOICES for one in row), (one for row in said for one in row), columns, strict=True)
    for (design, *sides), texts, column in every:
        data = Files(REFERENCE).columns(f"{design}/sweep.csv", "seed robust_accuracy clean_accuracy", text="run method attack")
        of = [
            dict(zip(data["seed"][here], data[column][here], strict=True))
            for run, method in (side.split("/") for side in sides)
            for here in [(data["run"] == run) & (data["method"] == method) & (data["attack"] == "apgd-ce")]
        ]
        gain = 100 * np.array([of[0][seed] - of[1][seed] for seed in of[0]])
        found = [gain.mean(), *stats.t.interval(0.95, len(gain) - 1, gain.mean(), stats.sem(gain))]
        assert [float(text.replace("−", "-")) for text in texts[1:]] == pytest.approx(found, abs=0.05 + 1e-9), (design, *sides)


def sets_of(design, *columns):
    """{(run, method): {seed: values of these columns}} under APGD-CE at the first radius."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    with (REFERENCE / design / "sweep.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["attack"] == "apgd-ce"]
    for row in rows:
        if row["eps"] == rows[0]["eps"]:
            found.setdefault((row["run"], row["method"]), {})[row["seed"]] = [float(row[name]) for name in columns]
    return found


def infonce_and_plain(design):
    """{run: (gain of InfoNCE in points, means of class SNR, diversity and label error of its unguided images)}."""
    sets = sets_of(design, "robust_accuracy", "class_snr_crossfit", "within_class_diversity", "label_error")
    found = {}
    for (run, method), of in sets.items():
        if method == "infonce-0.3":
            plain = sets[run, "unguided"]
            gain = 100 * np.mean([of[seed][0] - plain[seed][0] for seed in of])
            found[run] = gain, *np.mean([value[1:] for value in plain.values()], axis=0)
    return found


def section_of(name, start):
    page = (ROOT / "docs" / "results" / name).read_text(encoding="utf-8").partition(start)[2].partition("\n## ")[0]
    return " ".join(page.split())


def test_where_infonce_gains_is_what_a_line_through_the_pipelines_says():
    """By normal equations from the two sweep.csv."""
    each = [np.array(list(infonce_and_plain(f"{data}-pipeline").values())) for data in ("digits", "mnist")]
    y, x, diversity, wrong = np.concatenate(each).T
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    zero, scores = x.mean() - y.mean() / slope, [np.corrcoef(one, y)[0, 1] ** 2 for one in (x, diversity, wrong)]
    page = section_of("digits.md", "### Where InfoNCE gains")
    assert f"Over the {len(x)} treatments of the two designs its gain is {slope:.1f} points times (class SNR − {zero:.1f})" in page
    assert f"with R² = {scores[0]:.2f}." in page
    assert f"(R² = {scores[1]:.2f} and {scores[2]:.2f})" in page
    zeros = [-constant / own for own, constant in (np.polyfit(one[:, 1], one[:, 0], 1) for one in each)]
    assert "Digits alone cross zero at {:.1f}, MNIST alone at {:.1f}.".format(*zeros) in page
    assert np.mean(each[1][:, 1] < zero) > 0.5  # "most treatments of MNIST start below, most of digits above"
    assert np.mean(each[0][:, 1] > zero) > 0.5
    for design, start, text in (
        (
            "gtsrb-confirm",
            infonce_and_plain("gtsrb-confirm")["soft"][1],
            "at a class SNR of {:.1f} the line says {:+.1f}, and InfoNCE lost",
        ),
        ("gtsrb-report", gtsrb_report_snr(), "at {:.1f} it says {:+.1f}, and InfoNCE lost"),
    ):
        sets = sets_of(design, "robust_accuracy")
        guided, plain = next((of, sets[run, "unguided"]) for (run, method), of in sets.items() if method == "infonce-0.3")
        loss = -100 * np.array([guided[seed][0] - plain[seed][0] for seed in guided])
        ends = stats.t.interval(0.95, len(loss) - 1, loss.mean(), stats.sem(loss))
        said = text.format(start, slope * (start - zero)).replace("-", "−")
        assert f"{said} {loss.mean():.1f} [{ends[0]:.1f}, {ends[1]:.1f}]" in page


def gtsrb_report_snr():
    """Class SNR of the unguided images of gtsrb-report, described again."""
    with (REFERENCE / "gtsrb-report-description" / "description.csv").open(newline="", encoding="utf-8") as stream:
        return np.mean([float(row["class_snr_crossfit"]) for row in csv.DictReader(stream) if row["method"] == "unguided"])


def test_the_prediction_of_where_infonce_gains_is_judged_by_its_own_rule():
    """1.9 points x (SNR - 4.1), as the design says; by hand from sweep.csv."""
    design = (ROOT / "image_experiments" / "designs" / "gtsrb-pipeline.toml").read_text(encoding="utf-8").replace("\n# ", " ")
    assert "InfoNCE over unguided images treated alike is 1.9 points x (SNR - 4.1)" in design
    sets = sets_of("gtsrb-pipeline", "robust_accuracy", "class_snr_crossfit")
    inside, signs, page = 0, [], (ROOT / "docs" / "results" / "photographs.md").read_text(encoding="utf-8")
    for run in ("drawn", "confident", "pseudo", "soft"):
        plain, guided = sets[run, "unguided"], sets[run, "infonce-0.3"]
        snr = np.mean([value[1] for value in plain.values()])
        gain = 100 * np.array([guided[seed][0] - plain[seed][0] for seed in plain])
        ends = stats.t.interval(0.95, len(gain) - 1, gain.mean(), stats.sem(gain))
        said = 1.9 * (snr - 4.1)
        inside += ends[0] <= said <= ends[1]
        signs += [said * gain.mean() > 0] * bool(ends[0] > 0 or ends[1] < 0)
        row = f"| {snr:.1f} | {said:+.1f} | {gain.mean():+.1f} [{ends[0]:+.1f}, {ends[1]:+.1f}] |".replace("-", "−")
        assert row in page
    assert (inside, signs) == (2, [False, False])
    found = where_guidance_gains.finding(Files(REFERENCE))
    assert (
        "2 predictions lie inside the intervals, and of the 2 gains whose interval leaves out zero 0 have the predicted sign"
        in found
    )
    assert found.endswith("The prediction fails.")


def test_what_selection_and_guidance_do_to_class_snr_is_said_rightly():
    page = section_of("digits.md", "### Where InfoNCE gains")
    snr = {}
    for data, name in (("digits", "digits"), ("mnist", "MNIST")):
        sets = sets_of(f"{data}-pipeline", "class_snr_crossfit")
        snr |= {(name, *one): np.mean(list(of.values())) for one, of in sets.items() if one[1] != "real"}
        kept = snr[name, "pseudo", "unguided"], snr[name, "confident", "unguided"]
        assert "from {:.1f} to {:.1f} on {}".format(*kept, name) in page
    confident = [snr["digits", "confident", method] for method in ("unguided", "hard-negative-0.3")]
    assert "from {:.1f} to {:.1f} among the most confident".format(*confident) in page
    lowered = [one for one in snr if one[2] in ("infonce-0.3", "anchored-reversed-0.1", "noise-0.1")]
    assert all(snr[one] < snr[*one[:2], "unguided"] for one in lowered)
    sets = sets_of("gtsrb-confirm", "robust_accuracy")
    loss = np.mean([sets["drawn", "unguided"][seed][0] - value[0] for seed, value in sets["drawn", "particle-0.1"].items()])
    assert f"Particle guidance loses {100 * loss:.1f} there" in page


def test_the_numbers_of_seeds_are_those_of_students_test_at_the_spread_of_the_designs():
    page = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
    rows = re.findall(r"^[|] `([\w-]+)`, (\d+) comparisons [|] ([\d.]+) [|] (\d+) [|] (\d+) [|]$", page, re.M)
    assert len(rows) == 3
    for design, *said in rows:
        data = Files(REFERENCE).columns(f"{design}/comparisons.csv", "low high seeds")
        seeds = data["seeds"]
        spread = 100 * np.median((data["high"] - data["low"]) / 2 * np.sqrt(seeds) / stats.t.ppf(0.975, seeds - 1))

        def power(n, level, spread=spread):
            edge, shift = stats.t.ppf(1 - level / 2, n - 1), np.sqrt(n) / spread
            return stats.nct.sf(edge, n - 1, shift) + stats.nct.cdf(-edge, n - 1, shift)

        needed = [next(n for n in range(3, 100) if power(n, level) >= 0.8) for level in (0.05, 0.05 / len(seeds))]
        assert said == [str(len(seeds)), f"{spread:.2f}", *map(str, needed)]


def test_the_wrong_labels_of_guided_images_are_those_of_the_sweeps():
    page = (ROOT / "docs" / "guidance.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^[|] wrong soft labels.*$", page, re.M)
    found = []
    for data, scale in (("digits", 0.1), ("mnist", 0.05), ("gtsrb", 0.1)):
        table = Files(REFERENCE).columns(f"{data}-confirm/sweep.csv", "label_error", text="run method attack")
        for method in ("unguided", f"particle-{scale}"):
            here = (table["run"] == "soft") & (table["method"] == method) & (table["attack"] == "apgd-ce")
            found.append(f"{100 * table['label_error'][here].mean():.0f}")
    assert re.findall(r"(\d+) %", row) == found


def test_what_is_said_of_the_prediction_is_what_was_found(drawn):
    """The table of the page on digits: both factors and how many lie inside."""
    page = (ROOT / "docs" / "results" / "digits.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (digits|MNIST); .*? \| ([\d.]+) \| ([\d.]+) \| (\d) of (\d) \|$", page, re.M)
    shown = predicted_worth.numbers(Files(REFERENCE))
    assert len(rows) == 2
    for panel, factor, unity, inside, count in rows:
        found = predicted_worth.misses(shown, panel)
        assert [factor, unity, inside, count] == [f"{found[0]:.2f}", f"{found[1]:.2f}", str(found[2]), str(found[3])]
    assert f"{rows[1][3]} of {rows[1][4]} inside" in (ROOT / "docs" / "results" / "summary.md").read_text(encoding="utf-8")
    outside, sets = predicted_worth.refuted(shown, "GTSRB")
    assert f"outside for {outside} of {sets} sets" in (ROOT / "docs" / "results" / "photographs.md").read_text(encoding="utf-8")


def test_what_wrong_labels_do_to_separation_is_what_t16_gives():
    """The page on digits: one kind of samples at n/d = 56, then the sets of digits-cpu beside real images."""

    def tangent(*law, **options):
        found = ProportionalLaw(*law, **options)
        return found.across / found.along

    page = " ".join((ROOT / "docs" / "results" / "digits.md").read_text(encoding="utf-8").split())
    falls, rises = (re.search(rf"{verb} from (\d\.\d+) to (\d\.\d+)", page).groups() for verb in ("falls", "rises"))
    for said, wrong in ((falls, 0.0), (rises, 0.021)):
        assert [float(text) for text in said] == pytest.approx(
            [tangent(snr, 56, label_noise=wrong) for snr in (4.7, 9.4)], abs=5e-4
        )
    along = [tangent(snr, 56, label_noise=0.02) for snr in (1.2, 2, 3, 4.7, 7, 10)]
    assert along == sorted(along)
    clean = [tangent(snr, 56) for snr in (2.4, 2.7, 3.0)]
    assert max(clean) == clean[1]

    sets = {}
    with (REFERENCE / "digits-cpu" / "description.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            columns = ("class_snr_crossfit_judge", "label_error", "effective_dimension_judge")
            sets.setdefault(row["method"], []).append([float(row[column]) for column in columns])
    plain, apart = (np.mean(sets[name], axis=0) for name in ("unguided", "anchored-0.3"))
    said = re.search(r"that tangent is ([\d.]+) for class-anchored 0.3 and ([\d.]+) for unguided", page).groups()
    for text, (snr, wrong, dim) in zip(said, (apart, plain), strict=True):
        law = tangent((plain[0], snr), (60 / dim, 400 / dim), label_noise=(0.0, wrong))
        assert float(text) == pytest.approx(law, abs=5e-4)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("digits", r"digits (\d+) images per effective|have (\d+) and"),
        ("mnist", r"MNIST (\d+)\. There|and (\d+) images per effective"),
    ],
)
def test_images_per_effective_dimension_are_those_of_the_description(data, words):
    """Of two of ten classes: real and synthetic images over the effective dimension of unguided ones."""
    with (ROOT / "figures" / "reference" / f"{data}-confirm-worth" / "worth.csv").open(newline="", encoding="utf-8") as stream:
        plain = next(row for row in csv.DictReader(stream) if (row["run"], row["method"]) == ("soft", "unguided"))
    found = 0.2 * (float(plain["n_real"]) + float(plain["n_synthetic"])) / float(plain["effective_dimension"])
    pages = [ROOT / "docs" / "results" / f"{name}.md" for name in ("summary", "digits")]
    said = [re.search(words, page.read_text(encoding="utf-8")) for page in pages]
    assert [next(filter(None, one.groups())) for one in said] == [f"{found:.0f}"] * 2


def test_the_line_of_where_infonce_gains_on_new_seeds_of_digits():
    """Ten ways of keeping images in digits-paper; the line is that of the page and of gtsrb-pipeline.toml."""
    page = (ROOT / "docs" / "results" / "digits.md").read_text(encoding="utf-8")
    slope, zero = map(float, re.search(r"its gain is ([\d.]+) points times \(class SNR − ([\d.]+)\)", page).groups())
    with (REFERENCE / "digits-paper" / "sweep.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["attack"] == "apgd-ce"]
    values = {(row["run"], row["method"], row["seed"]): row for row in rows}
    kept = (
        "random",
        "confidence",
        "entropy",
        "gradient-norm",
        "gradient-norm-highest",
        "loss",
        "boundary",
        "class-separation",
        "density",
        "coverage",
    )
    inside, said, found = 0, [], []
    for run in kept:
        seeds = [seed for name, method, seed in values if name == run and method == "unguided"]
        plain, guided = ([values[run, method, seed] for seed in seeds] for method in ("unguided", "infonce-0.3"))
        gains = [100 * (float(b["robust_accuracy"]) - float(a["robust_accuracy"])) for a, b in zip(plain, guided, strict=True)]
        said.append(slope * (np.mean([float(row["class_snr_crossfit"]) for row in plain]) - zero))
        found.append(np.mean(gains))
        half = stats.t.ppf(0.975, len(gains) - 1) * np.std(gains, ddof=1) / math.sqrt(len(gains))
        inside += abs(said[-1] - found[-1]) <= half
    assert inside == len(kept) == 10
    errors = np.array(said) - found
    text = re.search(r"from \+([\d.]+) to \+([\d.]+) points\s+\(R² = ([\d.]+)\)", page).groups()
    score = 1 - (errors**2).sum() / ((np.array(found) - np.mean(found)) ** 2).sum()
    assert [float(one) for one in text] == [round(min(found), 1), round(max(found), 1), round(score, 2)]


def test_the_page_of_the_searches_has_every_candidate_and_what_is_said_of_their_places_holds(drawn):
    """Its table is the one that is drawn; places of digits.md are lines of it."""
    table = (drawn / "drawn" / "search.md").read_text(encoding="utf-8")
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert "\n".join(rows) in (ROOT / "docs" / "results" / "search.md").read_text(encoding="utf-8")
    order = {data: [row for row in rows if f"| {data} |" in row] for data in ("digits", "MNIST")}
    assert [len(of) for of in order.values()] == [48, 24]

    def places(words, data="digits"):
        return [place for place, row in enumerate(order[data], 1) if words in row]

    page = " ".join((ROOT / "docs" / "results" / "digits.md").read_text(encoding="utf-8").split())
    said = [
        places("three rounds"),
        places("three rounds", "MNIST"),
        places("CADS"),
        places("autoguidance"),
        places("if four agree"),
    ]
    one, two, three, four, five = ([*map(str, found)] for found in said)
    assert f"places {', '.join(one[:2])} and {one[2]}, on MNIST {', '.join(two[:2])} and {two[2]}" in page
    assert f"CADS {' and '.join(three)}; autoguidance {' and '.join(four)};" in page
    assert f"four classifiers agree {', '.join(five[:3])} and {five[3]}." in page
    boundary = [min(place for place, row in enumerate(order[data], 1) if row.startswith("| boundary")) for data in order]
    assert f"its best place is {boundary[0]} of 48, and {boundary[1]} of 24 on MNIST" in page
    assert [min(places("| InfoNCE", data)) for data in order] == [2, 8]


def test_what_hotter_noise_of_other_strengths_gained():
    """Paired by seed, Student, from sweep.csv of digits-eps; and the cheap set of MNIST that was no rival."""
    page = section_of("digits.md", "### Against its rivals\n") + section_of("digits.md", "## The goal")
    for design, a, b, attack, text in (
        (
            "digits-eps",
            "eps-0.15-std-1.15",
            "eps-0.15-std-1.0",
            "pgd-20",
            "1.15 gained {:.1f} points [{:.1f}, {:.1f}] over unguided images",
        ),
        ("digits-eps", "eps-0.15-std-1.3", "eps-0.15-std-1.0", "pgd-20", "1.3 gained {:.1f} [{:.1f}, {:.1f}]"),
        ("digits-eps", "eps-0.15-std-1.3", "eps-0.15-std-1.15", "pgd-20", "{:.1f} [{:.1f}, {:.1f}] more than 1.15"),
        (
            "mnist-pipeline",
            "unconditional-confident",
            "soft",
            "apgd-ce",
            "it is {:.1f} points [{:.1f}, {:.1f}] above unguided images",
        ),
    ):
        data = Files(REFERENCE).columns(f"{design}/sweep.csv", "seed robust_accuracy", text="run method attack")
        of = [
            dict(zip(data["seed"][here], data["robust_accuracy"][here], strict=True))
            for here in ((data["run"] == run) & (data["method"] == "unguided") & (data["attack"] == attack) for run in (a, b))
        ]
        gain = 100 * np.array([of[0][seed] - of[1][seed] for seed in of[0]])
        assert text.format(gain.mean(), *stats.t.interval(0.95, len(gain) - 1, gain.mean(), stats.sem(gain))) in page
