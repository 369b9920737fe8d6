"""Options of the test command."""


def pytest_addoption(parser):
    parser.addoption(
        "--update-numbers", action="store_true", help="pin the numbers of the figures anew (tests/figures/numbers.json)"
    )
