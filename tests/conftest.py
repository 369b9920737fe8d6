"""Options of the test command, and the order of the files."""

LONG = (
    *("test_killing.py", "test_run_cifar.py", "test_regenerate.py", "test_together.py", "test_inputs.py", "test_attacks.py"),
    *("test_run_sweep.py", "test_gaussian_mixture.py", "test_report.py", "test_guided_diffusion.py", "test_documentation.py"),
    *("test_evaluate.py", "test_value.py", "test_confidence.py"),
)
"""Begun first, the longest before the others, so that no process is left with one at the end."""


def pytest_addoption(parser):
    parser.addoption(
        "--update-numbers", action="store_true", help="pin the numbers of the figures anew (tests/figures/numbers.json)"
    )


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
