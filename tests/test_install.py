"""What is installed: the wheel is the library, the main job brings no torch. Slow: pip fetches packages."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def copy_of_the_project(folder):
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


def metadata_version(metadata):
    return re.search(r"^Version: (.*)$", metadata, re.MULTILINE)[1]


def test_the_wheel_is_the_library(tmp_path):
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "-w",
        str(tmp_path),
        str(copy_of_the_project(tmp_path / "p")),
    ]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "REPOSITORY": "https://example.org/some/one"})
    (wheel,) = tmp_path.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == {"theory", "contrastive_dp"}
    assert {"theory/py.typed", "contrastive_dp/py.typed", "contrastive_dp/guidance/contrastive.py"} <= set(names)
    (metadata,) = (archive.read(name).decode() for name in names if name.endswith("dist-info/METADATA"))
    targets = re.findall(r"\]\(([^)]*)\)", metadata)
    assert len(targets) > 30
    assert not [target for target in targets if not target.startswith(("https://", "#"))]  # a package index has no files of ours
    assert f"https://example.org/some/one/raw/v{metadata_version(metadata)}/docs/gallery/phase_diagram.png" in targets


def test_the_first_command_installs_no_torch_and_ends_with_every_picture(tmp_path):
    project = copy_of_the_project(tmp_path / "p")
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run(["make", "demo", "ARGS=--quick"], cwd=project, env=environment, check=True, capture_output=True)
    listed = subprocess.run(
        [project / ".venv/bin/python", "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
    )
    installed = {line.split("==")[0].lower() for line in listed.stdout.splitlines()}
    assert "numpy" in installed
    assert not installed & {"torch", "diffusers", "sphinx", "pytest", "mypy"}
    assert len(list((project / "results/gaussian_mixture-quick").glob("*.png"))) == 12  # one a figure
