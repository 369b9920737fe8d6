"""Options of the test command, and which tests share a process."""

from pathlib import Path

import pytest

LONG = (
    "test_run_cifar.py", "test_killing.py", "figures", "test_together.py", "test_inputs.py", "test_attacks.py", "test_gaussian_mixture.py",
    "test_guided_diffusion.py", "test_run_sweep.py", "test_documentation.py",
)  # fmt: skip
"""Begun first, the longest before the others, so that no process is left with one at the end."""


def pytest_addoption(parser):
    parser.addoption(
        "--update-numbers", action="store_true", help="pin the numbers of the figures anew (tests/figures/numbers.json)"
    )


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the groups
def pytest_collection_modifyitems(items):
    """With several processes (--dist loadgroup) tests of a file stay together, and those of tests/figures, which share what was drawn."""

    def group(item):
        return "figures" if item.path.parent.name == "figures" else item.path.name

    for item in items:
        item.add_marker(pytest.mark.xdist_group(f"{Path(item.path).parent.name}-{group(item)}"))
    items.sort(key=lambda item: LONG.index(group(item)) if group(item) in LONG else len(LONG))
