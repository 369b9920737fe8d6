"""The repository keeps its own promises: equal dependency lists, pins without addresses, light imports, one-way arrows."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.examples import python_blocks, run_block

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements():
    extras = PROJECT["optional-dependencies"].values()
    return sorted(
        {*PROJECT["dependencies"], *(entry for group in extras for entry in group if not entry.startswith("contrastive-dp["))}
    )


def test_environment_yml_equals_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = [entry for entry in environment if isinstance(entry, str)]
    *pip_alone, itself = environment[-1]["pip"]
    assert itself == "-e ."
    assert f"python{PROJECT['requires-python']}" in conda
    renamed = {"pytorch": "torch", "pot": "POT"}
    parts = [re.fullmatch(r"([\w-]+)(.*)", entry).groups() for entry in conda if not re.match(r"(python>|pip$)", entry)]
    assert sorted([*(renamed.get(name, name) + bound for name, bound in parts), *pip_alone]) == requirements()


def test_the_packages_that_were_asked_for_are_there():
    names = {re.match(r"[A-Za-z-]+", entry).group() for entry in requirements()}
    assert {"numpy", "scipy", "scikit-learn", "matplotlib", "torch", "seaborn", "pytest"} <= names


def test_constraints_pin_every_requirement_and_hold_no_address():
    text = (ROOT / "constraints.txt").read_text()
    assert "://" not in text
    assert "@" not in text
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in text.splitlines() if "==" in line}
    for entry in requirements():
        assert re.match(r"[A-Za-z-]+", entry).group().lower() in pinned, entry


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", sorted((ROOT / "theory").glob("*.py")), ids=lambda path: path.name)
def test_theory_needs_numpy_and_scipy_alone(path):
    foreign = set(imports_of(path)) - set(sys.stdlib_module_names) - {"theory", "numpy", "scipy"}
    assert not foreign


def test_importing_theory_is_light():
    heavy = ("torch", "matplotlib", "sklearn", "scipy.stats", "scipy.optimize")
    probe = f"import sys, theory; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("path", sorted((ROOT / "contrastive_dp").glob("*.py")), ids=lambda path: path.name)
def test_the_sampler_needs_torch_and_neither_theory_nor_simulations(path):
    allowed = {"contrastive_dp", "torch", "numpy", "safetensors", "diffusers", "huggingface_hub"}
    assert not set(imports_of(path)) - set(sys.stdlib_module_names) - allowed


@pytest.mark.parametrize("path", sorted((ROOT / "image_experiments").glob("*.py")), ids=lambda path: path.name)
def test_the_image_experiments_build_on_the_sampler_alone(path):
    assert not {"theory", "simulations", "figures"} & set(imports_of(path))


@pytest.mark.parametrize("path", sorted((ROOT / "command_line").glob("*.py")), ids=lambda path: path.name)
def test_the_command_line_room_knows_no_other(path):
    assert not {"theory", "simulations", "image_experiments", "contrastive_dp", "torch", "figures"} & set(imports_of(path))


@pytest.mark.parametrize("path", sorted((ROOT / "figures").rglob("*.py")), ids=lambda path: path.name)
def test_figures_read_result_files_alone(path):
    assert not {"theory", "simulations", "image_experiments", "contrastive_dp", "torch"} & set(imports_of(path))


def test_importing_the_image_experiments_loads_nothing_slow():
    """What a stage needs is loaded by the stage; help and bad input answer at once."""
    heavy = ("diffusers", "matplotlib", "sklearn", "scipy", "pooch", "pyautoattack", "torchmetrics")
    news = f"print([name for name in {heavy} if name in set(sys.modules) - old])"
    probe = f"import torch, sys; old = set(sys.modules); import image_experiments.run_cifar; {news}"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


def test_importing_the_sampler_costs_little_beyond_torch():
    """Neither diffusers nor anything else that is slow; the time itself is measured by `make bench`."""
    heavy = ("diffusers", "matplotlib", "sklearn", "scipy", "theory", "torch._dynamo")
    probe = f"import torch, sys; old = set(sys.modules); import contrastive_dp; print([n for n in {heavy} if n in set(sys.modules) - old])"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


def test_readme_shows_commands_that_exist():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:`|^)make ([a-z-]+)", readme, re.M)):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for script in set(re.findall(r"python ([a-z_]+/[a-z_]+\.py)", readme)):
        assert (ROOT / script).is_file(), script
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", readme):
        assert (ROOT / picture).is_file(), picture


def python_block(name):
    """The python block of the README that uses this name."""
    (block,) = [b for b in python_blocks(ROOT / "README.md") if name in b]
    return block


def test_readme_guidance_example_runs():
    """The guidance example, with a small U-Net and classifier where the reader has large ones."""
    import torch

    from tests.contrastive_dp.conftest import small_unet

    classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 16), torch.nn.Tanh(), torch.nn.Linear(16, 10))
    names = {"unet": small_unet(), "classifier": classifier, "labels": torch.arange(16) % 10, "x": torch.randn(16, 3, 8, 8)}
    plain = dict(names)
    block = python_block("ContrastiveGuidance")
    exec(block, names)
    assert names["x"].shape == (16, 3, 8, 8)
    assert torch.isfinite(names["x"]).all()
    exec(re.sub(r"guide\(x, t, (\w+)\)", r"\1", block), plain)  # the same loop without the guidance
    assert not torch.allclose(plain["x"], names["x"])


def test_readme_example_gives_the_numbers_it_shows():
    assert run_block(python_block("AveragingLaw"), {}) == 5
