"""What theory says that the images of a sweep are worth: planted descriptions, and the one line that refuses the rest."""

import csv
import json
import math

import pytest

from simulations.image_worth import DESCRIPTION, main
from theory import ProportionalLaw, sample_worth

PLAIN = {"n_real": 300, "n_synthetic": 2000, "class_snr": 3.0, "label_error": 0.03, "effective_dimension": 8.0}
SETS = {
    ("soft", "real"): dict.fromkeys(PLAIN, ""),
    ("soft", "unguided"): {},
    ("double", "unguided"): {"n_synthetic": 4000},
    ("drawn", "wrong"): {"label_error": 0.3},
    ("drawn", "opposite"): {"label_error": 0.52},
    ("drawn", "close"): {"class_snr": 1.5, "effective_dimension": 4.0},
}


def sweep_of(folder, sets=SETS):
    """sweep.csv with every set on two seeds, whose label errors differ and have the planted mean."""
    folder.mkdir(exist_ok=True)
    with (folder / "sweep.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["run", "method", "seed", *DESCRIPTION.values()])
        for (run, method), change in sets.items():
            for seed, apart in ((7, -0.01), (8, 0.01)):
                cells = PLAIN | change
                if cells["label_error"] != "":
                    cells |= {"label_error": cells["label_error"] + apart}
                writer.writerow([run, method, seed, *cells.values()])
    return folder


def refused(capsys, *arguments):
    assert main([str(one) for one in arguments]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    return line


def test_planted_sets_are_worth_what_they_are(tmp_path, capsys):
    """An image of twice as many is worth one. Samples per dimension by hand: 2 x 300 / 10 / 8 and 2 x 2000 / 10 / 8."""
    sweep = sweep_of(tmp_path / "sweep")
    assert main(["--sweep", str(sweep)]) == 0
    assert "images of soft/unguided per image of the set" in capsys.readouterr().out
    with (tmp_path / "sweep-worth" / "worth.csv").open(newline="") as stream:
        found = {(row["run"], row["method"]): float(row["worth"]) for row in csv.DictReader(stream)}
    assert ("soft", "real") not in found
    assert found["soft", "unguided"] == found["double", "unguided"] == pytest.approx(1)
    plain = ProportionalLaw((3.0, 3.0), (7.5, 50.0), label_noise=(0.0, 0.03))
    wrong = ProportionalLaw((3.0, 3.0), (7.5, 50.0), label_noise=(0.0, 0.3))
    close = ProportionalLaw((3.0, 1.5), (15.0, 100.0), label_noise=(0.0, 0.03))
    assert math.isnan(found["drawn", "opposite"])  # one such set must not deny the others their prediction
    assert found["drawn", "wrong"] == pytest.approx(sample_worth(wrong, plain))
    assert found["drawn", "close"] == pytest.approx(2 * sample_worth(close, plain))  # half the dimensions
    summary = json.loads((tmp_path / "sweep-worth" / "summary.json").read_text())
    assert (summary["settings"]["seed"], summary["settings"]["seeds"]) == (7, 2)


def test_sets_without_real_images_are_compared_alone(tmp_path):
    """No real image stands beside them; by hand, as above, with the synthetic part alone."""
    sweep = sweep_of(tmp_path / "sweep", {key: change | {"n_real": 0} for key, change in SETS.items() if key[1] != "real"})
    assert main(["--sweep", str(sweep)]) == 0
    with (tmp_path / "sweep-worth" / "worth.csv").open(newline="") as stream:
        found = {(row["run"], row["method"]): float(row["worth"]) for row in csv.DictReader(stream)}
    plain, close = ProportionalLaw(3.0, 50.0, label_noise=0.03), ProportionalLaw(1.5, 100.0, label_noise=0.03)
    assert found["soft", "unguided"] == pytest.approx(1)
    assert found["drawn", "close"] == pytest.approx(2 * sample_worth(close, plain))


def test_runs_may_be_named_by_numbers_and_tables_may_come_from_a_spreadsheet(tmp_path):
    sweep = sweep_of(tmp_path / "sweep", {("1", "unguided"): {}, ("2", "unguided"): {"class_snr": 1.5}})
    text = (sweep / "sweep.csv").read_text()
    (sweep / "sweep.csv").write_text("\ufeff" + text, encoding="utf-8")
    assert main(["--sweep", str(sweep), "--plain", "1/unguided"]) == 0
    with (tmp_path / "sweep-worth" / "worth.csv").open(newline="") as stream:
        assert [row["run"] for row in csv.DictReader(stream)] == ["1", "2"]


def test_the_folder_may_be_the_one_at_hand(tmp_path, monkeypatch):
    monkeypatch.chdir(sweep_of(tmp_path / "sweep"))
    assert main(["--sweep", "."]) == 0
    assert (tmp_path / "sweep-worth" / "worth.csv").is_file()


def test_bad_input_is_one_line(tmp_path, capsys):
    sweep = sweep_of(tmp_path / "sweep")
    assert "has no sweep.csv; name the folder" in refused(capsys, "--sweep", tmp_path)
    assert "no such set, did you mean soft/unguided?" in refused(capsys, "--sweep", sweep, "--plain", "sof/unguided")
    assert "--classes 1: must be at least 2" in refused(capsys, "--sweep", sweep, "--classes", "1")
    assert not (tmp_path / "sweep-worth").exists()
    for change, words in (
        ({"label_error": 0.6}, "a share of 0.60 of its labels"),
        ({"class_snr": "nan"}, "the description of soft/unguided is"),
        ({"class_snr": 40.0}, "is beyond the theory"),
        ({"class_snr": -1.0}, "theory needs numbers, and none below 0"),
        ({"n_real": -5}, "theory needs numbers, and none below 0"),
        ({"effective_dimension": 0.0}, "theory needs numbers"),
        ({"class_snr": "many"}, "theory needs numbers"),
    ):
        bad = sweep_of(tmp_path / "bad", {("soft", "unguided"): change})
        assert words in refused(capsys, "--sweep", bad)
    text = (sweep / "sweep.csv").read_text()
    (tmp_path / "bad" / "sweep.csv").write_text(text[: text.rindex(",")])  # cut off
    assert "has not one cell per column; the file is damaged" in refused(capsys, "--sweep", tmp_path / "bad")
    (tmp_path / "bad" / "sweep.csv").write_text("run,method,seed\nsoft,unguided,1\n")
    assert "has no column n_real, n_synthetic, class_snr_crossfit_judge" in refused(capsys, "--sweep", tmp_path / "bad")
