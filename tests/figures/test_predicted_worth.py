"""Predicted beside measured worth: what counts, what is told, and a sweep that lacks a set."""

import shutil

import numpy as np
import pytest

from command_line.output import UserError
from figures.experiments import EXPERIMENTS, REFERENCE
from figures.figure import Numbers
from figures.image_figures.predicted_worth import SHOWN, finding, misses, numbers
from figures.inputs import Files


def test_what_lies_beyond_what_was_tried_does_not_count():
    least, most = SHOWN
    drawn = Numbers.of(
        [
            ("a", "one", 2.0, 4.0, 3.0, 5.0),
            ("a", "two", 3.0, 1.5, 1.0, 3.0),
            ("a", "three", 3.0, 5.0, 4.0, most),
            ("a", "four", 3.0, least, least, 2.0),
        ]
    )
    factor, unity, inside, count = misses(drawn, "a")
    assert factor == pytest.approx(2)  # both are off by a factor of two
    assert unity == pytest.approx(np.exp(np.sqrt((np.log(4) ** 2 + np.log(1.5) ** 2) / 2)))
    assert (inside, count) == (1, 2)


def test_what_is_told_is_what_is_drawn():
    drawn = numbers(Files(REFERENCE))
    factor, unity, inside, count = misses(drawn, "digits")
    assert f"on digits within a typical factor of {factor:.2f} ({unity:.2f} if all" in finding(Files(REFERENCE))
    assert f"{inside} of {count} predictions" in finding(Files(REFERENCE))
    assert count == 8


def test_a_sweep_without_a_set_is_told(tmp_path):
    """As the report of results made with --quick needs it, which passes over a UserError alone."""
    for name in ("digits-confirm", "digits-confirm-worth"):
        shutil.copytree(REFERENCE / name, tmp_path / name)
    path = tmp_path / "digits-confirm-worth" / "worth.csv"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if not line.startswith("unlabelled")))
    with pytest.raises(UserError, match=r"worth\.csv: has no set unlabelled/unguided; make the whole sweep"):
        finding(Files(tmp_path))


def test_the_command_reads_the_sweep_beside_its_results(tmp_path):
    call = EXPERIMENTS["digits-confirm-worth"].call(tmp_path / "mine" / "digits-confirm-worth", quick=True, seed=3)
    assert call[2:] == [
        "--sweep",
        str(tmp_path / "mine" / "digits-confirm"),
        "--out",
        str(tmp_path / "mine" / "digits-confirm-worth"),
    ]
    assert EXPERIMENTS["digits-confirm-worth"].command() == "python simulations/image_worth.py --sweep results/digits-confirm"
