"""The tutorial runs as written, so do the examples of one's own loss, data set and figure, and the pages build without a warning."""

import csv
import importlib
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from figures.experiments import EXPERIMENTS, REFERENCE
from figures.figure import make_figure
from figures.inputs import Files
from image_experiments import preset
from image_experiments.engine.presets import PRESETS
from tests.examples import python_blocks, run_block
from tests.image_experiments.test_python import TINY

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def quick_smoke(monkeypatch):
    """The preset `smoke` with trainings of a few steps: what the pages do with it is the same."""
    small = preset("smoke", **{name: value for name, value in TINY.items() if name not in ("norm", "methods", "workers")})
    monkeypatch.setitem(PRESETS, "smoke", lambda: small)


def run_tutorial(folder):
    names = {}
    blocks = python_blocks(ROOT / "docs" / "tutorial.md")
    assert sum(run_block(block, names) for block in blocks) == 18
    guided, unguided, labels = names["guided"], names["unguided"], names["labels"]
    far, near = (x[labels == 1].mean(0) - x[labels == 0].mean(0) for x in (guided, unguided))
    assert far.norm() > 1.2 * near.norm()  # computed here another way: guidance moved the classes apart
    with (folder / "results" / "tutorial" / "metrics.csv").open() as stream:
        accuracy = {(row["method"], row["attack"]): float(row["robust_accuracy"]) for row in csv.DictReader(stream)}
    assert {method for method, _ in accuracy} == {"real", "unguided", "infonce-0.3"}
    assert names["digits"].shape[1:] == (8, 8, 1)
    assert names["classifier"](torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    return accuracy


def test_the_tutorial_runs_and_shows_the_numbers_it_says(tmp_path, monkeypatch, quick_smoke):
    monkeypatch.chdir(tmp_path)
    run_tutorial(tmp_path)


@pytest.mark.slow
def test_the_tutorial_trains_classifiers_that_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert all(0.15 < value < 0.9 for value in run_tutorial(tmp_path).values())


def test_the_page_for_python_runs(tmp_path, monkeypatch, quick_smoke, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in python_blocks(ROOT / "docs" / "python.md"):
        run_block(block, names)
    assert list(names["result"].metrics["method"].unique()) == ["real", "unguided", "infonce-0.3"]
    assert "step: no such setting, did you mean steps?" in capsys.readouterr().out
    assert names["settings"].classifier.steps == 20


def test_the_page_of_samplers_runs():
    names = {}
    for block in python_blocks(ROOT / "docs" / "samplers.md"):
        run_block(block, names)
        assert names.pop("x").isfinite().all()


def test_the_page_of_evaluation_runs():
    names = {}
    for block in python_blocks(ROOT / "docs" / "evaluate.md"):
        run_block(block, names)
    verdict = names["verdict"]
    assert list(verdict.table["attack"]) == ["clean", "pgd-20", "apgd"]
    assert len(verdict.outcomes["apgd"]) == 60
    assert len(verdict.per_class) == 10


def extension(word):
    (block,) = [block for block in python_blocks(ROOT / "docs" / "extend.md") if word in block]
    return block


def test_the_loss_of_the_documentation_guides():
    names = {}
    run_block(extension("class Spread"), names)
    assert torch.isfinite(names["samples"]).all()
    z = torch.nn.functional.normalize(torch.randn(5, 3, dtype=torch.float64), dim=1)
    pairs = [torch.exp(z[i] @ z[j] / 0.5) for i in range(5) for j in range(i)]
    assert torch.allclose(names["Spread"]()(z), torch.stack(pairs).sum(), rtol=1e-12)


def test_the_guidance_of_the_documentation_descends_its_loss():
    names = {}
    for word in ("class Spread", "class BrightnessGuidance"):
        run_block(extension(word), names)
    seen = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    guidance = names["BrightnessGuidance"](scale=1.0, target=0.3)
    by_hand = ((seen.mean((1, 2, 3)) - 0.3) / 12).reshape(-1, 1, 1, 1).expand_as(seen)
    with torch.no_grad():  # as a guided run calls it
        torch.testing.assert_close(guidance.gradient(seen, None, 0), by_hand, rtol=1e-12, atol=0)
    assert torch.isfinite(names["samples"]).all()


def test_the_data_set_of_the_documentation_reads(tmp_path):
    names = {}
    run_block(extension("def read_mine"), names)
    rng = np.random.default_rng(0)
    arrays = {f"{part}images": rng.integers(0, 256, (n, 4, 4, 1), np.uint8) for part, n in (("", 6), ("test_", 3))}
    arrays |= {"labels": np.array([0, 1, 2, 0, 1, 2]), "test_labels": np.array([0, 1, 2])}
    np.savez(tmp_path / "mine.npz", **arrays)
    data = names["read_mine"](tmp_path / "mine.npz")
    assert np.array_equal(data.test_images, arrays["test_images"])
    assert data.classes == ("0", "1", "2")
    assert len(data.checksum()) >= 32


def test_the_figure_of_the_documentation_draws(tmp_path):
    module = ModuleType("mine")
    run_block(extension("def draw"), module.__dict__)
    written = make_figure(module, "mine", Files(REFERENCE), tmp_path)
    assert {path.name for path in written} == {"mine.csv", "mine.png", "mine.pdf"}
    with (tmp_path / "mine.csv").open() as stream, (REFERENCE / "gaussian_mixture" / "ceiling.csv").open() as source:
        assert [float(row["y"]) for row in csv.DictReader(stream)] == [float(row["ceiling"]) for row in csv.DictReader(source)]


def test_the_pages_build_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(tmp_path / "trees")]
    built = subprocess.run(
        [*command, str(ROOT / "docs"), str(tmp_path / "html")], check=False, capture_output=True, text=True, cwd=ROOT
    )
    assert built.returncode == 0, built.stderr
    for module, name in (("theory", "guided_ddim_law"), ("contrastive_dp", "ContrastiveGuidance"), ("figures", "Numbers")):
        page = (tmp_path / "html" / "reference" / f"{module}.html").read_text(encoding="utf-8")
        assert f'.{name}"' in page, name


def test_the_page_of_commands_is_what_the_commands_say():
    """If not: python docs/write_commands.py."""
    written = runpy.run_path(str(ROOT / "docs" / "write_commands.py"))["page"]()
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == written
    names = re.findall(r"^\| `(.*?)` \|", written, re.M)
    assert all(name.count(left) == name.count(right) for name in names for left, right in ("{}", "[]"))
    assert any("class-separation,density,coverage}" in name for name in names)


WRITTEN = runpy.run_path(str(ROOT / "docs" / "write_notebooks.py"))["notebooks"]()


@pytest.mark.parametrize("name", WRITTEN)
def test_notebooks_are_the_pages(name):
    """If they are not: python docs/write_notebooks.py."""
    assert (ROOT / "docs" / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8") == WRITTEN[name]


@pytest.mark.slow  # the pages, which they are made from, run above
@pytest.mark.parametrize("name", WRITTEN)
def test_notebooks_run_on_their_own(name, tmp_path, monkeypatch, quick_smoke):
    monkeypatch.chdir(tmp_path)
    names = {}
    for cell in json.loads(WRITTEN[name])["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert {"theory-in-ten-minutes": "estimate", "guide-a-sampler": "covs"}.get(name, "classifier") in names


@pytest.mark.parametrize("module", ["theory", "contrastive_dp"])
def test_the_reference_has_every_public_name_once(module):
    page = (ROOT / "docs" / "reference" / f"{module}.md").read_text(encoding="utf-8")
    names = re.findall(r"^\.\. auto(?:class|function):: (\w+)$", page, re.M)
    assert sorted(names) == sorted(importlib.import_module(module).__all__)


def test_times_that_stand_in_two_places_agree():
    """make guided: in the page on installing, in --help, and where figures say what they are made from."""
    minutes, quick = re.fullmatch(r"(\d+) min; with --quick (\d+) min", EXPERIMENTS["guided_diffusion"].takes).groups()
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert f"| {minutes} minutes; `ARGS=--quick`: {quick} minutes |" in page
    commands = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert f"about {quick} minutes instead of {minutes} on 2 cores" in commands
