"""Every number that is drawn stands in the csv beside the figure, and the other way round; the numbers are those they were."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image
from scipy.spatial import cKDTree

from command_line.drawing import styled
from figures.experiments import REFERENCE
from figures.figure import GUIDE, HEADER, Numbers
from figures.inputs import Files
from figures.registry import SECTIONS, entries
from tests.figures.conftest import ROOT

FIGURES = [name for section, names in SECTIONS.items() if section != "tables" for name in names]
GRIDS = ("digit_samples", "gtsrb_samples", "cifar10_samples")  # pixels
PINNED = Path(__file__).with_name("numbers.json")
TURNED = (
    "comparisons",
    "comparisons_confirmed",
    "comparisons_further",
    "comparisons_photographs",
    "ablation_window",
    "ablation_embedding",
    "ablation_selection",
    "paper_ablations",
    "pipeline",
    "pipeline_mnist",
    "pipeline_gtsrb",
    "digits: worth in unguided images",
    "MNIST: worth in unguided images",
    "GTSRB: worth in unguided images",
)  # figures, or panels of them, where x of the csv runs downwards


def read_numbers(path):
    with path.open(newline="", encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)
    assert tuple(header) == HEADER
    return Numbers.of([(row[0], row[1], *map(float, row[2:])) for row in rows])


def module_of(name):
    return entries((name,))[0].module


def vertices(axis):
    """(points that stand for numbers, levels of guides) of an axis."""
    points, levels = [], []
    for line in axis.get_lines():
        assert isinstance(line, Line2D)
        if line.get_gid() == GUIDE:
            levels += [float(v) for v in (*line.get_xdata(), *line.get_ydata())]
        else:
            points += list(zip(line.get_xdata(), line.get_ydata(), strict=True))
    for collection in axis.collections:
        assert isinstance(collection, LineCollection | PolyCollection)
        if collection.get_gid() != GUIDE:
            for path in collection.get_paths():
                points += [tuple(v) for v in path.vertices]
    for patch in axis.patches:
        assert isinstance(patch, Rectangle)
        if patch.get_gid() != GUIDE:
            points.append((patch.get_x() + patch.get_width() / 2, patch.get_height()))
    found = np.array(points, dtype=float).reshape(-1, 2)
    return found[np.isfinite(found).all(axis=1)], np.array(levels)


def distances(points, others, scale):
    return cKDTree(others / scale).query(points / scale)[0]


@pytest.mark.parametrize("name", [name for name in FIGURES if name not in GRIDS])
def test_what_is_drawn_is_what_is_written(name, drawn):
    numbers = read_numbers(drawn / "drawn" / f"{name}.csv")
    with styled():
        figure = module_of(name).draw(numbers)
    axes = [axis for axis in figure.axes if axis.get_visible()]
    panels = numbers.panels()
    together = len(axes) != len(panels)  # several panels of the csv share an axis: compared as one
    groups = [(axes, panels)] if together else [([axis], [panel]) for axis, panel in zip(axes, panels, strict=True)]
    for some, of in groups:
        rows = np.isin(numbers.columns["panel"], of)
        x, *values = (numbers.columns[column][rows] for column in HEADER[2:])
        pairs = [np.stack([y, x] if {name, *of} & {*TURNED} else [x, y], axis=1) for y in values]
        written, known = pairs[0], np.concatenate(pairs)
        known = known[np.isfinite(known).all(axis=1)]
        seen, levels = (np.concatenate(parts) for parts in zip(*(vertices(axis) for axis in some), strict=True))
        scale = np.maximum(np.abs(known).max(axis=0), 1e-12)
        assert distances(seen, known, scale).max() < 1e-9, "something is drawn that is not in the csv"
        left = written[distances(written, seen, scale) > 1e-9]
        as_guide = [np.isclose(levels[:, None], point, rtol=1e-12).any() for point in left]
        assert all(as_guide), f"in the csv but not drawn: {left[~np.array(as_guide)]}"


def test_the_comparison_notices_a_changed_number(drawn):
    """The test above fails when the drawing differs from the csv in one point by a millionth."""
    numbers = read_numbers(drawn / "drawn" / "ceiling.csv")
    with styled():
        figure = module_of("ceiling").draw(numbers)
    seen, _ = vertices(figure.axes[0])
    known = np.stack([numbers.columns["x"], numbers.columns["y"]], axis=1)
    assert distances(seen, known, np.array([90.0, 1.0])).max() < 1e-12
    known[3, 1] += 1e-6
    assert distances(seen, known, np.array([90.0, 1.0])).max() > 1e-9


@pytest.mark.parametrize("name", GRIDS)
def test_the_pixels_that_are_drawn_are_those_of_the_files(name, drawn):
    module = module_of(name)
    with styled():
        figure = module.draw(read_numbers(drawn / "drawn" / f"{name}.csv"))
    for axis, file in zip(figure.axes, module.FIGURE.inputs, strict=True):
        with Image.open(REFERENCE / file) as image:
            assert np.array_equal(axis.images[0].get_array(), np.asarray(image))


def test_coloured_pixels_come_back(tmp_path):
    pixels = np.random.default_rng(2).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    (tmp_path / "digits-cpu").mkdir()
    Image.fromarray(pixels).save(tmp_path / "digits-cpu" / "a.png")
    module = module_of("digit_samples")
    figure = module.draw(module.numbers_of({"a": "digits-cpu/a.png"}, Files(tmp_path)))
    assert np.array_equal(figure.axes[0].images[0].get_array(), pixels)


def fingerprint(numbers):
    """Count and sums of each series, to nine digits: what must not change with style or library."""
    found = {}
    for panel in numbers.panels():
        for series in numbers.names(panel):
            of = numbers.series(panel, series)
            finite = [np.where(np.isfinite(v), v, 0.125) for v in (of.x, of.y, of.low, of.high)]
            sums = [float(f"{np.sum(v * np.cos(np.arange(len(v)))):.9g}") for v in finite]
            found[f"{panel} | {series}"] = [len(of.x), *sums]
    return found


@pytest.mark.parametrize("name", FIGURES)
def test_the_numbers_are_those_they_were(name, drawn, request):
    """Pinned: a style or a library version that alters a figure's data is seen. `pytest --update-numbers` pins them anew."""
    found = fingerprint(read_numbers(drawn / "drawn" / f"{name}.csv"))
    if name in GRIDS:
        found = {"pixels": hashlib.sha256(json.dumps(found).encode()).hexdigest()}
    pinned = json.loads(PINNED.read_text(encoding="utf-8")) if PINNED.is_file() else {}
    if request.config.getoption("--update-numbers"):
        PINNED.write_text(json.dumps(pinned | {name: found}, indent=0, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
        return
    assert set(found) == set(pinned[name])
    for series, values in found.items():
        expected = pinned[name][series]
        assert values == (expected if isinstance(expected, str) else pytest.approx(expected, rel=1e-7, abs=1e-9)), series


def test_numbers_come_from_the_result_files():
    """A figure's numbers against its csv, read here another way: the ceiling, and one interval of an ablation."""
    with (REFERENCE / "gaussian_mixture" / "ceiling.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    series = module_of("ceiling").numbers(Files(REFERENCE)).series(0, "n = 30")
    assert series.x.tolist() == [float(row["angle_degrees"]) for row in rows]
    assert series.y.tolist() == [float(row["n30"]) for row in rows]
    with (REFERENCE / "digits-ablations" / "sweep.csv").open() as stream:
        sweep = [row for row in csv.DictReader(stream) if row["run"] == "loss"]
    value = {(row["method"], row["seed"]): float(row["robust_accuracy"]) for row in sweep}
    gains = [value["infonce-0.3", seed] - value["unguided", seed] for seed in ("0", "1", "2")]
    found = module_of("ablation_window").numbers(Files(REFERENCE)).series("gain", "t < 700")
    assert found.y[0] == pytest.approx(np.mean(gains), rel=1e-12)
    reach = 4.302652729911275 * np.std(gains, ddof=1) / np.sqrt(3)  # Student's t, 2 degrees of freedom
    assert found.high[0] - found.y[0] == pytest.approx(reach, rel=1e-9)


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "gallery").glob("*.png")), ids=lambda path: path.stem)
def test_the_pictures_of_the_readme_are_those_that_are_drawn(path, drawn):
    """Within 2 % of the grey levels, so that a moved pixel is nothing. If not: cp figures/drawn/NAME.png docs/gallery/."""
    with Image.open(path) as ours, Image.open(drawn / "drawn" / path.name) as theirs:
        assert ours.size == theirs.size
        pixels = [np.asarray(image.convert("L"), dtype=float) for image in (ours, theirs)]
    assert np.abs(pixels[0] - pixels[1]).mean() < 0.02 * 255
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert any(f"gallery/{path.name}" in page.read_text(encoding="utf-8") for page in pages)
