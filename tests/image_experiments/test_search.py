"""The search by successive halving: who is kept, what is reused, what it costs, and what it refuses."""

import csv
import json

import numpy as np
import pytest

from command_line.output import UserError
from image_experiments import run_search, searching
from image_experiments.searching import SearchSettings, candidates_of, kept_of, rank, search, trainings
from image_experiments.sweeps import DESIGNS, read_design
from image_experiments.synthesis.methods import parse_method
from tests.image_experiments.test_run_cifar import SMALL as WITH_WORKERS

at = WITH_WORKERS.index("--workers")
SMALL = [*WITH_WORKERS[:at], *WITH_WORKERS[at + 2 :]]
BASE = [*SMALL, "--evaluation.split", "validation", "--evaluation.autoattack-images", "0"]


def write(tmp_path, runs, base=BASE, name="mine"):
    path = tmp_path / f"{name}.toml"
    path.write_text(f"seed = 3\nbase = {json.dumps([*map(str, base)])}\n{runs}", encoding="utf-8")
    return path


def call(*arguments):
    return run_search.main([*map(str, arguments)])


RUNS = """
[run.plain]
methods = ["unguided", "infonce:0.3"]
[run.soft]
methods = ["unguided", "particle:0.1"]
arguments = ["--selection.labels", "soft"]
"""


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    out = folder / "out"
    assert call("--design", write(folder, RUNS), "--rungs", 1, 2, "--keep", 0.5, "--workers", 1, "--out", out) == 0
    return folder, out


def table_of(out):
    with (out / "search.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_best_are_tried_with_more_seeds(searched):
    _, out = searched
    table = table_of(out)
    first, second = ([row for row in table if row["rung"] == rung] for rung in "12")
    assert [(len(first), len(second))] == [(4, 2)]
    robust = [float(row["robust_accuracy"]) for row in first]
    assert robust == sorted(robust, reverse=True)
    assert [row["kept"] for row in first] == ["True", "True", "False", "False"]
    assert {(row["run"], row["method"]) for row in second} == {(row["run"], row["method"]) for row in first[:2]}
    assert {row["seeds"] for row in second} == {"2"}
    for row in table:  # from the rung's own metrics, seed by seed
        with (out / f"rung-{row['rung']}" / "runs" / row["run"] / "metrics.csv").open(newline="") as stream:
            of = [float(one["robust_accuracy"]) for one in csv.DictReader(stream) if one["method"] == row["method"]]
        assert float(row["robust_accuracy"]) == pytest.approx(np.mean(of))
        assert len(of) == int(row["seeds"])
    best = json.loads((out / "summary.json").read_text())["best"]
    assert (best["run"], best["method"]) == (second[0]["run"], second[0]["method"])


def test_what_a_rung_has_made_is_not_made_again(searched):
    _, out = searched
    for row in table_of(out):
        if row["rung"] == "2":
            name = f"classifier/{row['method']}/seed3.json"
            stamps = [out / f"rung-{rung}" / "runs" / row["run"] / "stages" / name for rung in (1, 2)]
            assert stamps[0].read_text() == stamps[1].read_text()


def test_the_same_command_again_trains_nothing_and_another_search_is_refused(searched, capsys):
    folder, out = searched
    before = {path: path.stat().st_mtime_ns for path in out.rglob("stages/classifier/*/*.json")}
    arguments = ("--design", folder / "mine.toml", "--keep", 0.5, "--workers", 1, "--out", out)
    assert call(*arguments, "--rungs", 1, 2) == 0
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("stages/classifier/*/*.json")}
    capsys.readouterr()
    assert call(*arguments, "--rungs", 1, 3) == 1
    assert "holds another experiment (rungs" in capsys.readouterr().err


def test_from_python(searched):
    folder, out = searched
    found = search(folder / "mine.toml", rungs=(1, 2), keep=0.5, workers=1, out=out)
    assert list(found["place"]) == [1, 2, 3, 4, 1, 2]
    with pytest.raises(UserError, match="belongs to the command line"):
        search(folder / "mine.toml", dry_run=True, out=out)


def test_how_many_are_kept_and_trained(tmp_path):
    assert [kept_of(n, 1 / 3) for n in (48, 16, 6, 2, 1)] == [16, 6, 2, 1, 1]
    design = read_design(write(tmp_path, RUNS))
    settings = SearchSettings(tmp_path / "mine.toml", rungs=(2, 5, 6), keep=0.5)
    assert trainings(settings, design) == 4 * 2 + 2 * 3 + 1 * 1


def test_ranking_reads_one_attack_and_one_threat(tmp_path):
    rows = [
        ("a", "unguided", 0, "pgd-20", 0.1, 0.5, 0.9), ("a", "unguided", 1, "pgd-20", 0.1, 0.7, 0.8),
        ("a", "unguided", 0, "pgd-20", 0.2, 0.0, 0.9), ("a", "unguided", 1, "pgd-20", 0.2, 0.0, 0.8),
        ("a", "unguided", 0, "apgd-ce", 0.1, 0.99, 0.9), ("a", "unguided", 1, "apgd-ce", 0.1, 0.99, 0.8),
        ("b", "infonce-0.3", 0, "pgd-20", 0.1, 0.8, 0.7), ("b", "infonce-0.3", 1, "pgd-20", 0.1, 0.6, 0.7),
        ("b", "infonce-0.3", 0, "apgd-ce", 0.1, 0.1, 0.7), ("b", "infonce-0.3", 1, "apgd-ce", 0.1, 0.1, 0.7),
    ]  # fmt: skip
    header = "run,method,seed,attack,eps,robust_accuracy,clean_accuracy,norm"
    path = tmp_path / "sweep.csv"
    path.write_text("\n".join([header, *(",".join(map(str, (*row, "linf"))) for row in rows)]), encoding="utf-8")
    left = [("a", "unguided"), ("b", "infonce:0.3")]
    found = rank(path, left, SearchSettings(path, attack="pgd-20"))
    assert [row[:3] for row in found] == [("b", "infonce-0.3", 2), ("a", "unguided", 2)]
    assert found[1][3:] == pytest.approx((0.6, np.std([0.5, 0.7], ddof=1), 0.85))
    assert rank(path, left, SearchSettings(path, attack="apgd-ce"))[0][0] == "a"
    with pytest.raises(UserError, match="a/unguided was not attacked by apgd; name one of its attacks"):
        rank(path, left, SearchSettings(path, attack="apgd"))
    path.write_text(path.read_text().replace("\na,", "\n250,").replace("\nb,", "\nNone,"))  # names that look like something else
    found = rank(path, [("250", "unguided"), ("None", "infonce:0.3")], SearchSettings(path, attack="pgd-20"))
    assert [row[0] for row in found] == ["None", "250"]


def test_the_attack_is_known_before_anything_is_trained(tmp_path, capsys, monkeypatch):
    more = [*SMALL, "--evaluation.split", "validation"]
    path = write(tmp_path, RUNS + 'arguments = ["--selection.labels", "soft", "--evaluation.pgd-steps", "3"]\n', base=more)
    path.write_text(path.read_text().replace('arguments = ["--selection.labels", "soft"]\n', "", 1))
    for flags, message in (
        ((), "--attack is missing: candidates are attacked by pgd-5, apgd-ce, pgd-3; name one of them"),
        (("--attack", "pgd-5"), "--attack pgd-5: run soft is attacked by pgd-3, apgd-ce; all runs need the same attack"),
    ):
        assert call("--design", path, "--out", tmp_path / "out", "--dry-run", *flags) == 1
        assert message in capsys.readouterr().err
    monkeypatch.setattr("image_experiments.sweep_cost.cost_of_sweep", lambda *_: "")
    assert call("--design", path, "--out", tmp_path / "out", "--dry-run", "--attack", "apgd-ce") == 0
    with pytest.raises(UserError, match="give the path of a design file"):
        search({"run": {}})


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--eps", "0.05"), "linf 0.05"),
        (("--norm", "l2"), "l2 "),
        (("--validation", "25"), "25 of 25 images"),
    ],
)
def test_candidates_that_are_attacked_otherwise_are_not_ranked(tmp_path, capsys, more, told):
    """The smallest radius would have won."""
    design = write(tmp_path, f'[run.a]\nmethods = ["unguided"]\n[run.b]\nmethods = ["unguided"]\narguments = {json.dumps(more)}\n')
    assert call("--design", design, "--rungs", 1, "--out", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "runs a and b would be ranked by unlike measurements" in error
    assert told in error
    assert not (tmp_path / "out").exists()


def test_how_many_images_autoattack_gets_counts_only_where_it_ranks():
    ways = {"a": ("linf", 0.1, 100, 100), "b": ("linf", 0.1, 100, 20)}
    searching.check_alike(SearchSettings(DESIGNS / "x.toml", attack="pgd-20"), ways)
    with pytest.raises(
        UserError, match=r"runs a and b would be ranked by unlike measurements \(linf 0.1, 100 of 100 images; linf 0.1, 20"
    ):
        searching.check_alike(SearchSettings(DESIGNS / "x.toml", attack="apgd"), ways)
    other_images = {"a": ("linf", 0.1, 300, 200), "b": ("linf", 0.1, 400, 200)}
    with pytest.raises(UserError, match=r"200 of 300 images; linf 0\.1, 200 of 400"):
        searching.check_alike(SearchSettings(DESIGNS / "x.toml", attack="apgd"), other_images)


def test_options_of_methods_that_fell_out_are_left_out_of_a_rung():
    options = ("--generation.negatives", "same", "--generation.steps", "4", "--rounds", "2", "--generation.window", "0", "400")
    auto = ("--generation.windows", "0", "300", "--generation.label-error", "0.1", "--generation.pilot", "20")

    def left(*methods):
        return searching.without_others_options((*options, *auto), [parse_method(method) for method in methods])

    assert left("infonce:auto", "infonce:0.3") == (*options, *auto)
    assert left("infonce:0.3") == options
    assert left("unguided") == options[2:]
    assert left("real") == ("--generation.steps", "4", "--generation.window", "0", "400")


def test_a_design_beside_the_search_is_no_other_search(tmp_path, monkeypatch):
    """Its name was compared with its path, and the same command was refused."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, '[run.one]\nmethods = ["real"]\n')
    for _ in range(2):
        assert call("--design", "mine.toml", "--rungs", 1, "--workers", 1, "--out", "out") == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--rungs", 4, 2), "--rungs 4 2: give numbers of seeds that grow"),
        (("--rungs", 0, 2), "--rungs 0 2: give numbers of seeds that grow"),
        (("--rungs", 1, 3000000000), "--rungs 1 3000000000: give numbers of seeds that grow up to 1000"),
        (("--most", -1), "--most -1: give a number of classifiers"),
        (("--keep", 1), "--keep 1.0: must lie in (0, 1)"),
        (("--keep", "nan"), "--keep nan: must lie in (0, 1)"),
        (("--most", 10), "--most 10: this search trains 16 classifiers; use fewer candidates"),
        (("--data-dir", "/none"), "--data-dir /none: does not exist"),
    ],
)
def test_a_search_that_cannot_be_is_one_line(tmp_path, capsys, flags, message):
    assert call("--design", write(tmp_path, RUNS), "--out", tmp_path / "out", *flags) == 1
    line = capsys.readouterr().err.strip()
    assert message in line
    assert "\n" not in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["--help", "--help-all"])
def test_help_is_printed(capsys, flag):
    with pytest.raises(SystemExit) as stopped:
        call(flag)
    assert stopped.value.code == 0
    assert "Successive halving over the runs and methods of a design" in " ".join(capsys.readouterr().out.split())


def test_test_images_choose_nothing(tmp_path, capsys):
    design = write(tmp_path, RUNS, base=SMALL)
    assert call("--design", design, "--out", tmp_path / "out", "--dry-run") == 1
    assert "run plain evaluates on test images, which must choose nothing" in capsys.readouterr().err
    best = write(tmp_path, RUNS.replace("[run.plain]", '[run.plain]\narguments = ["--classifier.keep", "best"]', 1), name="best")
    assert call("--design", best, "--out", tmp_path / "out") == 1
    assert (
        "run plain: --evaluation.split validation: --classifier.keep best has chosen the weights by these images"
        in capsys.readouterr().err
    )
    assert searching.OPTIMISTIC.startswith("chosen by this mean, so it is too high")


def test_the_committed_searches_are_what_their_heads_say(capsys, monkeypatch):
    monkeypatch.setattr(
        "image_experiments.sweep_cost.cost_of_sweep", lambda _, calls: f"{len(calls)} runs, {calls[0][0].name} first"
    )
    path = DESIGNS / "digits-search.toml"
    assert call("--design", path, "--dry-run", "--most", 160) == 0
    assert len(candidates_of(read_design(path))) == 48
    told = capsys.readouterr().out
    assert "48 candidates, 152 classifiers" in told
    assert told.endswith("the first rung, with 96 of these classifiers:\n16 runs, drawn first\n")
    assert call("--design", DESIGNS / "mnist-search.toml", "--dry-run", "--most", 80) == 0
    assert "24 candidates, 76 classifiers" in capsys.readouterr().out


def test_another_attack_is_another_search(searched, tmp_path, monkeypatch, capsys):
    """It ranks otherwise; the finished table was overwritten."""
    monkeypatch.setattr("image_experiments.sweep_cost.cost_of_sweep", lambda *_: "")
    _, out = searched
    held = json.loads((out / "settings.json").read_text())
    assert held["attack"] == "pgd-5"
    copy = tmp_path / "out"
    copy.mkdir()
    for name in ("search.csv", "summary.json"):
        (copy / name).write_bytes((out / name).read_bytes())
    (copy / "settings.json").write_text(json.dumps({**held, "attack": "apgd-ce"}))
    design = write(tmp_path, RUNS)
    flags = ("--design", design, "--rungs", 1, 2, "--keep", 0.5, "--workers", 1, "--out", copy)
    for dry, status in ((), 1), (("--dry-run",), 0):
        assert call(*flags, *dry) == status
        assert "holds another experiment (attack apgd-ce there, pgd-5 here)" in "".join(capsys.readouterr())
    assert (copy / "search.csv").read_bytes() == (out / "search.csv").read_bytes()
