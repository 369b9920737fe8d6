"""Predicted beside measured worth: what counts, what is told, and a sweep that lacks a set."""

import json
import shutil

import numpy as np
import pytest

from command_line.output import UserError, file_digest
from figures.experiments import EXPERIMENTS, REFERENCE
from figures.figure import Numbers
from figures.image_figures.predicted_worth import SHOWN, finding, misses, numbers, refuted
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


def test_a_worth_beyond_what_was_tried_refutes_only_what_lies_within():
    """GTSRB was tried from a quarter to four: "more than four" agrees with five, not with two; one open below ends at its top."""
    least, most = SHOWN
    rows = [
        ("one", 5.0, most, most, most),
        ("two", 2.0, most, most, most),
        ("three", 0.3, least, least, 0.5),
        ("four", 0.9, least, least, 0.5),
    ]
    assert refuted(Numbers.of([("GTSRB", *row) for row in rows]), "GTSRB") == (2, 4)


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


def test_predictions_of_another_sweep_are_not_set_beside_measurements(tmp_path):
    """A sweep that was made again: image_worth.py has to be run again too, and --run-missing does so."""
    for name in ("digits-confirm", "digits-confirm-worth"):
        shutil.copytree(REFERENCE / name, tmp_path / name)
    summary = tmp_path / "digits-confirm-worth" / "summary.json"
    name = "digits-confirm-worth/worth.csv"
    for digest, current in (("0" * 64, False), (file_digest(tmp_path / "digits-confirm" / "sweep.csv"), True)):
        summary.write_text(json.dumps(json.loads(summary.read_text()) | {"sweep_sha256": digest}))
        assert Files(tmp_path).current(name) is current
        if not current:
            with pytest.raises(
                UserError, match=r"worth\.csv: was computed from another digits-confirm/sweep\.csv; make it anew with"
            ):
                numbers(Files(tmp_path))
    assert not Files(tmp_path).current("digits-confirm/sweep-2.csv")
