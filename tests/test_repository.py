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
    assert f"python{PROJECT['requires-python']},<3.13" in conda
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
        assert re.match(r"[A-Za-z][\w-]*", entry).group().lower() in pinned, entry


def sources(*rooms):
    return [path for room in rooms for path in sorted((ROOT / room).rglob("*.py")) if "reference" not in path.parts]


def imports_of(path):
    """Modules of the top level, and project modules in full, that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: write the whole name of what is imported"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tops(path):
    return {name.split(".")[0] for name in imports_of(path)}


MAY_IMPORT = {
    "theory": {"theory", "numpy", "scipy"},
    "contrastive_dp": {"contrastive_dp", "torch", "numpy", "safetensors", "diffusers", "huggingface_hub"},
}
MAY_NOT = {
    "command_line": {"theory", "simulations", "image_experiments", "contrastive_dp", "torch", "figures"},
    "simulations": {"image_experiments"},
    "image_experiments": {"theory", "simulations", "figures"},
    "figures": {"theory", "simulations", "image_experiments", "contrastive_dp", "torch"},
}


@pytest.mark.parametrize("path", sources(*MAY_IMPORT), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_needs_little(path):
    assert not tops(path) - set(sys.stdlib_module_names) - MAY_IMPORT[path.relative_to(ROOT).parts[0]]


@pytest.mark.parametrize("path", sources(*MAY_NOT), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_arrow_between_rooms_runs_back(path):
    assert not tops(path) & MAY_NOT[path.relative_to(ROOT).parts[0]]


FLOORS = {
    "image_experiments": ("data", "models", "training", "evaluation", "synthesis", "engine", "output", "top"),
    "simulations": ("mixtures", "guided", "top"),
}
"""Rooms within a room, from the bottom up: a file imports from its own floor and those below. top: commands, and the door for Python."""


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def floor_of(module, room):
    parts = module.split(".")
    return FLOORS[room].index(parts[1] if len(parts) > 2 or (parts[1:2] and parts[1] in FLOORS[room]) else "top")


@pytest.mark.parametrize("room", FLOORS)
def test_every_folder_of_a_room_is_a_floor_and_no_arrow_runs_up(room):
    assert {p.name for p in (ROOT / room).iterdir() if (p / "__init__.py").is_file()} == set(FLOORS[room]) - {"top"}
    known = {module_of(path) for path in sources(room)}
    for path in sources(room):
        ours = module_of(path)
        for name in set(imports_of(path)) & known if ours != room else ():
            assert floor_of(name, room) <= floor_of(ours, room), f"{ours} imports {name}"


@pytest.mark.parametrize("room", ["theory", "contrastive_dp", "command_line", "simulations", "image_experiments", "figures"])
def test_imports_have_no_circle(room):
    files = {module_of(path): path for path in sources(room)}
    arrows = {name: {other for other in imports_of(path) if other in files and other != name} for name, path in files.items()}
    for name in [name for name, path in files.items() if path.stem == "__init__"]:
        arrows[name] = set()  # a package's front door names what is behind it
    done, waiting = set(), set(files)
    while ready := {name for name in waiting if arrows[name] <= done}:
        done |= ready
        waiting -= ready
    assert not waiting


UNSEEN = {"globals", "locals", "vars", "eval", "exec", "__import__", "import_module", "__subclasses__", "__dict__"}
"""Ways to reach code by its name as text, which command_line/used_code.py cannot follow."""


@pytest.mark.parametrize("path", sources("contrastive_dp", "image_experiments"), ids=lambda path: str(path.relative_to(ROOT)))
def test_code_of_stages_can_be_followed(path):
    """So that a stage runs again when code changes that it uses. A decorator from another module could keep what it decorates."""
    if path.stem == "__init__" and path.parent.name == "image_experiments":
        return  # the door for Python, which no stage uses
    tree = ast.parse(path.read_text())
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} - {"eval"}  # of torch modules
    assert not (named | attributes) & UNSEEN
    ours = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("image_experiments", "contrastive_dp", "command_line")
        for alias in node.names
    }
    decorators = [entry for node in ast.walk(tree) for entry in getattr(node, "decorator_list", ())]
    assert not {name.id for entry in decorators for name in ast.walk(entry) if isinstance(name, ast.Name)} & ours


LONG_SIGNATURES = {"ddim_sample", "ddpm_sample", "diffusers_sample", "train_projection_head"}
"""Of the library, whose options by keyword users know from others; none of theirs is needed."""


@pytest.mark.parametrize("path", sources("theory", "contrastive_dp", "command_line", "simulations", "image_experiments", "figures"),
                         ids=lambda path: str(path.relative_to(ROOT)))  # fmt: skip
def test_a_function_fits_a_screen(path):
    """50 lines beside its docstring, eight arguments."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef):
            continue
        first = node.body[0]
        text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
        lines = node.end_lineno - node.lineno + 1 - (first.end_lineno - first.lineno + 1 if text else 0)
        names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs) if a.arg not in ("self", "cls")]
        assert lines <= 50, f"{node.name}: {lines} lines"
        assert len(names) <= 8 or node.name in LONG_SIGNATURES, f"{node.name}: {len(names)} arguments"


def test_importing_theory_is_light():
    heavy = ("torch", "matplotlib", "sklearn", "scipy.stats", "scipy.optimize")
    probe = f"import sys, theory; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


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


def test_the_main_job_and_the_figures_need_no_torch():
    """`make demo` installs the extra `commands` alone."""
    needed = {re.match(r"[\w-]+", entry)[0] for entry in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["commands"])}
    assert needed == {
        "numpy",
        "scipy",
        "scikit-learn",
        "matplotlib",
        "seaborn",
        "pandas",
        "pillow",
        "joblib",
        "tyro",
        "tqdm",
        "threadpoolctl",
    }
    imported = {"sklearn": "scikit-learn", "PIL": "pillow", "mpl_toolkits": "matplotlib"}
    job = [ROOT / "simulations" / "gaussian_mixture.py", *sources("simulations/mixtures", "command_line", "figures", "theory")]
    ours = {"theory", "command_line", "simulations", "figures"}
    optional = {"distributed"}  # Dask, with --cluster
    for path in job:
        foreign = {imported.get(name, name) for name in tops(path) - set(sys.stdlib_module_names) - ours - optional}
        assert foreign <= needed, path
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^demo: \$\(CORE\)$", makefile, re.M)
    assert re.search(r"^\$\(CORE\):.*\n(\t.*\n)*?\t\$\(PIP\) -e \"\.\[commands\]\"$", makefile, re.M)


def test_versions_agree():
    import contrastive_dp
    import theory

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert theory.__version__ == contrastive_dp.__version__ == citation["version"]
    assert (ROOT / "theory" / "py.typed").is_file()
    assert (ROOT / "contrastive_dp" / "py.typed").is_file()


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def is_committed(path):
    """Whether git has it, or a file in it: what only lies in somebody's folder is not there for others."""
    found = subprocess.run(["git", "ls-files", str(path.relative_to(ROOT))], check=True, capture_output=True, text=True, cwd=ROOT)
    return bool(found.stdout)


@pytest.mark.parametrize("page", [page for page in PAGES if "_build" not in page.parts], ids=lambda page: page.stem)
def test_pages_show_commands_and_files_that_exist(page):
    text, makefile = page.read_text(encoding="utf-8"), (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.M)):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for script in set(re.findall(r"(?:python|run\(\) \{ python) ([a-z_]+/[a-z_]+\.py)", text)):
        assert (ROOT / script).is_file(), script
    for design in set(re.findall(r"designs/([\w-]+)\.toml", text)):
        assert design == "NAME" or (ROOT / "image_experiments" / "designs" / f"{design}.toml").is_file(), design
    for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        assert link.startswith("http") or is_committed((page.parent / link).resolve()), link


def test_the_readme_is_short():
    """At most 160 lines and 11.5 KB: what is more belongs into docs/."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 160
    assert len(text.encode()) <= 11_500


def python_block(name):
    """The python block of the README that uses this name."""
    (block,) = [b for b in python_blocks(ROOT / "README.md") if name in b]
    return block


def test_readme_guidance_example_runs():
    """The guidance example, with a small U-Net and classifier where the reader has large ones."""
    import torch
    from diffusers import DDPMScheduler

    from tests.contrastive_dp.conftest import small_unet

    classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 16), torch.nn.Tanh(), torch.nn.Linear(16, 10))
    names = {
        "unet": small_unet(classes=10),
        "classifier": classifier,
        "trained_with": DDPMScheduler(),
        "labels": torch.arange(16) % 10,
        "x": torch.randn(16, 3, 8, 8),
    }
    plain = dict(names)
    block = python_block("ParticleGuidance")
    exec(block, names)
    assert names["x"].shape == (16, 3, 8, 8)
    assert torch.isfinite(names["x"]).all()
    exec(re.sub(r"guide\(x, t, (\w+)\)", r"\1", block), plain)  # the same loop without the guidance
    assert not torch.allclose(plain["x"], names["x"])


def test_readme_example_gives_the_numbers_it_shows():
    assert run_block(python_block("AveragingLaw"), {}) == 5
