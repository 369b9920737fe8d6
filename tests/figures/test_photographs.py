"""The table and the curves of photographs against their files, read here another way; and what cannot be run without the data."""

import csv
import statistics

import pytest

from command_line.words import in_words
from figures.experiments import EXPERIMENTS, REFERENCE
from figures.image_figures import training_curves
from figures.inputs import Files
from figures.tables import photographs
from tests.figures.conftest import run_main


def read(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(("data", "table"), photographs.TABLES.items())
def test_every_row_is_mean_and_deviation_over_seeds(data, table):
    sweep = read(REFERENCE / table)
    found = [dict(zip(photographs.HEADER, row, strict=True)) for row in photographs.rows(Files(REFERENCE)) if row[1] == data]
    assert {row["method"] for row in found} == {in_words(row["method"]) for row in sweep}
    again = read(REFERENCE / table.replace("/sweep", "-description/description"))
    columns = {"clean": "clean_accuracy", "PGD-20": "robust_accuracy"}
    columns |= {name: column for column, name in photographs.DESCRIBED.items()}
    keys = {in_words(one["method"]): one["method"] for one in sweep}
    for row in found:
        row["method"] = keys[row["method"]]
        mine = [one for one in sweep if one["run"] == "main" and one["method"] == row["method"]]
        pgd = [one for one in mine if one["attack"] == "pgd-20"]
        assert row["seeds"] == len({one["seed"] for one in pgd}) == len(pgd)
        for name, column in columns.items():
            values = [float(one[column]) for one in pgd]
            if row["method"] == "real" and column in photographs.DESCRIBED:
                assert row[name].text() == ""
                continue
            assert (row[name].mean, row[name].sd) == pytest.approx((statistics.fmean(values), statistics.stdev(values)), rel=1e-9)
        snr = [float(one["class_snr_crossfit"]) for one in again if (one["run"], one["method"]) == ("main", row["method"])]
        assert len(snr) == 3 or row["method"] == "real"
        assert row["class SNR"].text() == "" if not snr else row["class SNR"].mean == pytest.approx(statistics.fmean(snr), rel=1e-9)
        apgd = [float(one["robust_accuracy"]) for one in mine if one["attack"] == "apgd-ce"]
        assert row["APGD-CE"].mean == pytest.approx(statistics.fmean(apgd), rel=1e-9)
        whole = [float(one["robust_accuracy"]) for one in sweep if one["attack"] == "autoattack" and one["method"] == row["method"]]
        assert row["AutoAttack"].text() == "" if not whole else row["AutoAttack"].mean == pytest.approx(statistics.fmean(whole))


def test_curves_are_means_over_all_seeds_of_the_design():
    drawn = training_curves.numbers(Files(REFERENCE))
    for design, methods in training_curves.METHODS.items():
        seeds = sorted({int(row["seed"]) for row in read(REFERENCE / design / "sweep.csv")})
        assert seeds == list(training_curves.SEEDS[design])
        for method in methods:
            files = [read(REFERENCE / design / "runs" / "main" / "curves" / f"{method}-seed{seed}.csv") for seed in seeds]
            curve = drawn.series(f"{training_curves.TITLES[design]}: {training_curves.CLASSIFIERS}", in_words(method))
            steps, robust = ([[float(row[name]) for row in file] for file in files] for name in ("step", "robust_accuracy"))
            assert all(curve.x.tolist() == one for one in steps)
            assert curve.y.tolist() == pytest.approx([statistics.fmean(of) for of in zip(*robust, strict=True)], rel=1e-9)
        for seed in seeds:
            file = read(REFERENCE / design / "runs" / "main" / "curves" / f"diffusion-seed{seed}.csv")
            curve = drawn.series(f"{training_curves.TITLES[design]}: {training_curves.DIFFUSION}", f"seed {seed}")
            assert curve.y.tolist() == [float(row["loss"]) for row in file]


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_what_needs_a_copy_of_a_data_set_is_left_out_and_says_how_to_make_it(tmp_path, capsys, dry):
    """In one line with the command; no run begins only to fail. Named by --only, it is a failure."""
    flags = ("--only", "gtsrb_samples", "--run-missing", "--results", tmp_path / "results", "--out", tmp_path / "out", *dry)
    assert run_main(*flags) == (0 if dry else 1)
    said = capsys.readouterr().out
    command = EXPERIMENTS["gtsrb-report"].command()
    assert command.endswith("--data-dir COPY_OF_GTSRB")
    assert f"left out gtsrb_samples: needs gtsrb-report, for which you name a copy of the data: {command} --out {tmp_path}" in said
    assert "running" not in said
    assert "would make gtsrb_samples" not in said
    assert not (tmp_path / "results").exists()


def test_seeds_count_once_where_two_runs_attack_the_same_classifiers(tmp_path):
    """Both runs write PGD-20; a method of the second run alone is none of the table's."""
    columns = ["run", "method", "attack", "seed", "clean_accuracy", "robust_accuracy", *photographs.DESCRIBED]
    values = {0: 0.4, 1: 0.5, 2: 0.9}
    for table in photographs.TABLES.values():
        (tmp_path / table).parent.mkdir()
        with (tmp_path / table).open("w", newline="") as stream:
            writer = csv.DictWriter(stream, columns, restval="nan")
            writer.writeheader()
            for seed, value in values.items():
                about = {"seed": seed, "clean_accuracy": 0.95, "robust_accuracy": value}
                for run, attack in (
                    ("main", "pgd-20"),
                    ("main", "apgd-ce"),
                    ("autoattack", "pgd-20"),
                    ("autoattack", "autoattack"),
                ):
                    writer.writerow({"run": run, "method": "real", "attack": attack, **about})
                writer.writerow({"run": "autoattack", "method": "other", "attack": "autoattack", **about})
        again = tmp_path / table.replace("/sweep", "-description/description")
        again.parent.mkdir()
        again.write_text("run,method,seed,class_snr_crossfit\nmain,unguided,0,2.5\n")
    for row in photographs.rows(Files(tmp_path)):
        one = dict(zip(photographs.HEADER, row, strict=True))
        assert (one["method"], one["seeds"], one["label error"].text()) == ("real images alone", 3, "")
        for attack in ("PGD-20", "APGD-CE", "AutoAttack"):
            assert one[attack].sd == pytest.approx(statistics.stdev(values.values()), rel=1e-12)
