"""The figures drawn once from the reference results, and a browser where there is one."""

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from figures import regenerate
from figures.experiments import REFERENCE

ROOT = Path(__file__).resolve().parents[2]


def run_main(*arguments):
    return regenerate.main([str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """The folder of a whole regeneration, which the processes of one test run share: nobody writes into it."""
    several = "PYTEST_XDIST_WORKER" in os.environ
    root = tmp_path_factory.getbasetemp().parent if several else tmp_path_factory.mktemp("figures")
    with (root / "figures.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "figures-drawn").is_file():
            assert run_main("--out", root / "figures") == 0
            (root / "figures-drawn").touch()
    return root / "figures"


@pytest.fixture
def results(tmp_path):
    """A copy of the reference results, to damage."""
    folder = tmp_path / "results"
    shutil.copytree(REFERENCE, folder)
    return folder


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium of the system; skips where there is none."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium (or your system's way) to test the report in a browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()
