"""What is current is kept, what is not is made; a broken result file costs its own figures; the same bytes every time."""

import csv
import json
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch

import pytest

from figures import experiments, regenerate
from figures.experiments import EXPERIMENTS, REFERENCE, Experiment, experiment_of
from figures.inputs import Files
from figures.keep_reference import MOST_BYTES
from figures.registry import all_names, entries, figures_of
from figures.state import made_from, what_changed
from tests.figures.conftest import ROOT, run_main

ITEMS = len(all_names())  # figures and tables, without the report


def test_every_figure_is_csv_png_and_pdf_and_every_table_csv_markdown_and_latex(drawn):
    for entry in entries():
        for suffix in ("csv", "md", "tex") if entry.is_table else ("csv", "png", "pdf"):
            assert (drawn / "drawn" / f"{entry.name}.{suffix}").stat().st_size > 100, entry.name
    assert not [path for path in drawn.rglob(".*.*") if path.name.count(".") > 1 and path.parent.name != ".state"], (
        "temporary files"
    )
    modules = {p.stem for p in (ROOT / "figures").glob("*_figures/*.py")} | {p.stem for p in (ROOT / "figures/tables").glob("*.py")}
    assert set(all_names()) == modules - {"__init__", "ablations", "settings", "clouds"} | {"ablations"}


def test_a_second_run_makes_nothing(drawn, capsys):
    before = {path: path.stat().st_mtime_ns for path in drawn.rglob("*") if path.is_file()}
    assert run_main("--out", drawn) == 0
    assert f"0 built, {ITEMS + 1} kept, 0 failed" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in drawn.rglob("*") if path.is_file()} == before


def test_two_runs_give_the_same_bytes_on_any_number_of_processes(drawn, tmp_path):
    """One in eight, as they come; make test-slow takes all."""
    same_bytes(drawn, tmp_path, all_names()[::16], 8)


@pytest.mark.slow
def test_two_runs_give_the_same_bytes_in_every_file(drawn, tmp_path):
    same_bytes(drawn, tmp_path, [*all_names(), "report"], 90)


def same_bytes(drawn, out, names, count):
    assert run_main("--out", out, "--workers", 1, "--only", *names) == 0
    kinds = (".csv", ".png", ".pdf", ".md", ".tex", ".html")
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.suffix in kinds)
    assert len(files) >= count
    for file in files:
        assert (out / file).read_bytes() == (drawn / file).read_bytes(), file


def stale_after(out, results=REFERENCE):
    return {e.name for e in entries() if what_changed(e.name, made_from(e, Files(results)), out / "drawn")}


def test_a_changed_input_makes_just_the_figures_that_read_it(drawn, results, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(drawn, out)
    assert stale_after(out, results) == set()
    path = results / "digits-cpu" / "metrics.csv"
    path.write_text(path.read_text().replace("0.9732", "0.9733", 1))
    assert stale_after(out, results) == {"images"}
    path = results / "digits-cpu" / "details.csv"
    path.write_text(path.read_text().replace("0.9732", "0.9733", 1))
    assert stale_after(out, results) == {"robust_accuracy", "images"}
    path = results / "guided_diffusion" / "frontier.csv"
    path.write_text(path.read_text() + "0.95,3.9\n")
    assert stale_after(out, results) == {"robust_accuracy", "images", "price_gain"}
    capsys.readouterr()
    assert run_main("--out", out, "--results", results) == 0
    assert f"4 built, {ITEMS - 3} kept, 0 failed" in capsys.readouterr().out  # with the report
    assert "0.95,3.9" in (out / "drawn" / "price_gain.csv").read_text()


def test_a_changed_helper_makes_just_the_figures_that_use_it(drawn, tmp_path):
    """In a copy of the project: by name. A comment makes nothing anew."""
    for room in ("figures", "command_line"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("drawn", "__pycache__", "report.html"))

    def call(*flags):
        command = [sys.executable, str(tmp_path / "figures" / "regenerate.py"), *flags]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout

    chosen = ["guided_accuracy", "price_gain", "samples", "ceiling", "guidance", "ablation_loss", "ablations", "images"]
    shutil.copytree(drawn / "drawn", tmp_path / "figures" / "drawn")
    changes = (
        ("diffusion_figures/settings.py", "in_design", "return ", "return False or ", "guided_accuracy price_gain guidance"),
        ("diffusion_figures/clouds.py", "reach_of", "return ", "return 0.5 * ", "samples"),
        ("image_figures/ablations.py", "gain", "return ", "return False or ", "ablation_loss ablations"),
        ("tables/images.py", "spread", "return ", "return False or ", "images ablations"),
        ("inputs.py", "where", "return ", "return False or ", "samples ablation_loss ablations images"),
    )
    for helper in dict.fromkeys(change[0] for change in changes):
        path = tmp_path / "figures" / helper
        path.write_text(path.read_text() + "\n# changed\n")
    assert "would make nothing" in call("--dry-run", "--only", *chosen)
    for helper, function, old, new, names in changes:
        path = tmp_path / "figures" / helper
        text = path.read_text()
        at = text.index(old, text.index(f"def {function}("))
        path.write_text(text[:at] + new + text[at + len(old) :])
        said = re.search("would make (.*?);", call("--dry-run", "--only", *chosen))
        assert set(said[1].split()) == set(names.split()), helper
        path.write_text(text)


def test_what_was_changed_by_hand_or_deleted_is_made_again(drawn, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(drawn, out)
    (out / "drawn" / "ceiling.csv").write_text("mine")
    (out / "drawn" / "images.tex").unlink()
    assert stale_after(out) == {"ceiling", "images"}
    assert run_main("--out", out, "--only", "ceiling") == 0
    assert (out / "drawn" / "ceiling.csv").read_bytes() == (drawn / "drawn" / "ceiling.csv").read_bytes()


def damage_missing(path):
    path.unlink()


def damage_cut(path):
    text = path.read_text()
    path.write_text(text[: len(text) // 2].rsplit(",", 1)[0])


def damage_number(path):
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace(",", ",x", 1)
    path.write_text("\n".join(lines) + "\n")


def damage_column(path):
    path.write_text(path.read_text().replace("angle_degrees", "angle", 1))


def damage_rows(path):
    path.write_text(path.read_text().splitlines()[0] + "\n")


def damage_bytes(path):
    path.write_bytes(b"\xff\xfe\x00" + path.read_bytes())


def damage_cell(path):
    lines = path.read_text().splitlines()
    lines[4] += ",1"
    path.write_text("\n".join(lines) + "\n")


def damage_whole_rows(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:10]))


def damage_quote(path):
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, '"' + "\n".join(rows) * 100]) + "\n")


def damage_nothing_known(path):
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *("nan,nan,nan,nan" for _ in rows)]) + "\n")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_missing, r"ceiling.csv: is missing"),
        (damage_cut, r"ceiling.csv: line \d+: (the file is cut off|has \d cells in place of 4)"),
        (damage_number, r"ceiling.csv: line 3: ceiling is 'x0.93\d+', not a number"),
        (damage_column, r"ceiling.csv: line 1: the column angle_degrees is missing"),
        (damage_rows, r"ceiling.csv: line 2: the table has no rows"),
        (damage_bytes, r"ceiling.csv: cannot be read as text"),
        (damage_cell, r"ceiling.csv: line 5: has 5 cells in place of 4"),
        (damage_whole_rows, r"ceiling.csv: line 11: the table ends after 9 of \d+ rows"),
        (damage_quote, r"ceiling.csv: (line 2: has 1 cells|is no csv)"),
        (damage_nothing_known, r"no row holds what this figure shows"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_result_file_fails_its_figure_alone(damage, words, results, tmp_path, capsys):
    damage(results / "gaussian_mixture" / "ceiling.csv")
    out, beside = tmp_path / "out", ("linf_mean", "theory_checks") if damage is damage_missing else ()
    assert run_main("--results", results, "--out", out, "--only", "ceiling", *beside) == 1
    printed = capsys.readouterr()
    (line,) = [line for line in printed.err.splitlines() if line.startswith("failed")]
    assert re.search(words, line)
    assert "make it anew with: python simulations/gaussian_mixture.py (1 min), or restore the committed one" in line
    assert f"{len(beside)} built, 0 kept, 1 failed" in printed.out
    assert not (out / "drawn" / "ceiling.png").exists()
    if not beside:
        return
    assert (out / "drawn" / "linf_mean.png").is_file()
    shutil.copy(REFERENCE / "gaussian_mixture" / "ceiling.csv", results / "gaussian_mixture")
    assert run_main("--results", results, "--out", out, "--only", "ceiling", "linf_mean", "theory_checks") == 0
    assert "1 built, 2 kept, 0 failed" in capsys.readouterr().out


def test_a_broken_picture_and_summary_are_named_too(drawn, results, tmp_path, capsys):
    picture = results / "digits-cpu" / "mosaics" / "real.png"
    picture.write_bytes(picture.read_bytes()[:200])
    (results / "guided_diffusion" / "summary.json").write_text('{"settings": {\n"seed": 0,,}')
    out = tmp_path / "out"
    shutil.copytree(drawn, out)  # so that what is whole is kept
    assert run_main("--results", results, "--out", out) == 1
    printed = capsys.readouterr()
    assert re.search(r"failed digit_samples: .*real.png: is not a whole PNG", printed.err)
    assert re.search(r"failed report: .*summary.json: line 2: is not JSON", printed.err)
    page = (out / "report.html").read_text()
    assert "This figure could not be made" in page
    assert "summary.json: line 2: is not JSON" in page


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("provenance.json", '{"a":\n', "provenance.json: line 2: is not JSON"),
        ("provenance.json", "[]", "provenance.json: line 1: holds list, not a JSON object"),
        ("provenance.json", '{"digits-cpu": 3}', "provenance.json: line 1: holds no object for each experiment"),
        ("digits-cpu/summary.json", "[]", "summary.json: line 1: holds list, not a JSON object"),
        ("digits-cpu/summary.json", '{"settings": {"seed": "0"}}', "summary.json: line 1: tells no whole seed and seeds"),
    ],
)
def test_a_broken_summary_or_provenance_is_one_line_and_leaves_a_page(file, content, words, drawn, results, tmp_path, capsys):
    (results / file).write_text(content)
    shutil.copytree(drawn, tmp_path / "out")
    assert run_main("--results", results, "--out", tmp_path / "out", "--only", "report") == 1
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    assert len([line for line in printed.err.splitlines() if line.startswith("failed report: ") and words in line]) == 1
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_csv_with_a_byte_order_mark_and_windows_line_ends_is_read(results, tmp_path):
    path = results / "gaussian_mixture" / "ceiling.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert run_main("--results", results, "--out", tmp_path / "out", "--only", "ceiling") == 0


def test_the_report_shows_no_picture_that_is_not_of_these_results(drawn, results, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(drawn, out)
    shutil.copy(out / "drawn" / "linf_mean.png", out / "drawn" / "ceiling.png")
    (out / "drawn" / "sample_gap.png").unlink()
    assert run_main("--out", out, "--only", "report") == 0
    assert (out / "report.html").read_text().count("not made from these results") == 2
    for path in (results / "digits-cpu" / name for name in ("metrics.csv", "details.csv")):
        path.write_text(path.read_text().replace("0.97", "0.96"))
    assert run_main("--out", out, "--only", "report", "--results", results) == 0
    assert (out / "report.html").read_text().count("not made from these results") == 4


def test_a_report_without_any_figure_follows_its_results(results, tmp_path):
    """Verdicts are read from the tables, also where no figure is drawn."""
    page, table = tmp_path / "out" / "report.html", results / "digits-confirm" / "comparisons.csv"
    call = ("--out", tmp_path / "out", "--only", "report", "--results", results)
    assert run_main(*call) == 0
    before = page.read_text()
    header, first, *rest = table.read_text().splitlines()
    cells, place = first.split(","), header.split(",").index("difference")
    cells[place] = str(float(cells[place]) - 0.1)
    table.write_text("\n".join([header, ",".join(cells), *rest]) + "\n")
    assert run_main(*call) == 0
    assert page.read_text() != before
    before = page.stat().st_mtime_ns
    assert run_main(*call) == 0
    assert page.stat().st_mtime_ns == before


def test_a_fault_in_a_figures_code_stops_no_other(tmp_path, monkeypatch, capsys):
    from figures.theory_figures import ceiling

    def wrong(numbers):
        raise ZeroDivisionError("by hand")

    monkeypatch.setattr(ceiling, "draw", wrong)
    assert run_main("--out", tmp_path, "--only", "ceiling", "linf_mean", "--workers", 1) == 1
    printed = capsys.readouterr()
    assert "failed ceiling: ZeroDivisionError: by hand (in figures/theory_figures/ceiling.py" in printed.err
    assert "Traceback" in printed.err
    assert "1 built, 0 kept, 1 failed" in printed.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--only", "celing"), "--only celing: unknown, did you mean ceiling? --list shows all names"),
        (("--results", "nowhere"), "--results nowhere: no such folder"),
        (("--quick",), "--quick: belongs to the experiments that --run-missing runs; add --run-missing"),
        (("--seed", "3"), "--seed 3: belongs to the experiments"),
        (("--run-missing", "--seed", "-1"), "--seed -1: must lie in"),
        (("--workers", "-2"), "--workers -2: must lie in"),
        (("--out", "/dev/null/x"), "--out /dev/null/x/drawn: cannot create the folder"),
    ],
)
def test_bad_input_is_one_line(arguments, words, capsys):
    assert run_main(*arguments) == 1
    assert words.replace("? --list", "?; --list") in capsys.readouterr().err


def test_list_shows_name_contents_inputs_and_state(drawn, capsys):
    assert run_main("--out", drawn, "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("ceiling ")]
    assert re.fullmatch(r"ceiling +Rotated synthetic classes have a ceiling +gaussian_mixture/ceiling.csv +current", line)
    assert len([line for line in lines if line.endswith("current")]) == ITEMS
    assert run_main("--out", drawn / "elsewhere", "--list") == 0
    assert len([line for line in capsys.readouterr().out.splitlines() if line.endswith("not made yet")]) == ITEMS


SCRIPT = """
import sys, pathlib
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
out.mkdir(parents=True)
n = 3 if "--quick" in sys.argv else 5
seed = sys.argv[sys.argv.index("--seed") + 1]
(out / "ceiling.csv").write_text("angle_degrees,ceiling,n5,n30\\n" + "".join(f"{i},0.{seed},0.3,0.2\\n" for i in range(n)))
sys.exit(int("--fail" in sys.argv))
"""


def test_run_missing_runs_what_is_missing_and_draws_it(tmp_path, monkeypatch, capfd):
    (tmp_path / "experiment.py").write_text(SCRIPT)
    given = Experiment("gaussian_mixture", str(tmp_path / "experiment.py"), (), ("--quick",), "1 s")
    monkeypatch.setitem(EXPERIMENTS, "gaussian_mixture", given)
    flags = ("--only", "ceiling", "--run-missing", "--seed", 7, "--results", tmp_path / "results", "--out", tmp_path / "out")
    assert run_main(*flags, "--quick") == 0
    assert "running gaussian_mixture (small size)" in capfd.readouterr().out
    with (tmp_path / "out" / "drawn" / "ceiling.csv").open() as stream:
        assert [row["y"] for row in csv.DictReader(stream) if row["series"] == "n = ∞: the ceiling"] == ["0.7"] * 3
    assert run_main(*flags) == 0  # nothing is missing now: nothing is run
    assert "running" not in capfd.readouterr().out
    (tmp_path / "results" / "gaussian_mixture" / "summary.json").write_text("{}")
    (tmp_path / "results" / "gaussian_mixture" / "ceiling.csv").unlink()
    assert run_main(*flags, "--quick") == 1  # would lay small results over what is there
    assert "holds results, but not all" in capfd.readouterr().err
    shutil.rmtree(tmp_path / "results")
    failing = Experiment("gaussian_mixture", str(tmp_path / "experiment.py"), ("--fail",), (), "1 s")
    monkeypatch.setitem(EXPERIMENTS, "gaussian_mixture", failing)
    assert run_main(*flags) == 1
    assert "failed gaussian_mixture: ended with status 1" in capfd.readouterr().err


def test_the_reference_results_are_small_and_say_where_they_come_from():
    files = [path for path in REFERENCE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    notes = json.loads((REFERENCE / "provenance.json").read_text())
    assert set(notes) == set(EXPERIMENTS)
    from command_line.output import file_digest

    for name, note in notes.items():
        assert note["command"] == EXPERIMENTS[name].command()
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", note["date"])
        assert {"python", "numpy"} <= set(note["versions"])
        kept = {str(path.relative_to(REFERENCE / name)) for path in files if REFERENCE / name in path.parents}
        assert kept == set(note["sha256"])
        assert not [file for file in kept for pattern in EXPERIMENTS[name].left_out if fnmatch(file.rpartition("/")[2], pattern)]
        for file, digest in note["sha256"].items():
            assert file_digest(REFERENCE / name / file) == digest, file
    assert all(not re.search(rb"/(home|root|work|tmp)/", path.read_bytes()) for path in files if path.suffix in (".csv", ".json"))


def test_every_input_belongs_to_a_known_experiment_and_command():
    for entry in entries():
        for name in entry.figure.inputs:
            assert (ROOT / experiment_of(name).script).is_file()
    assert {e.name for e in figures_of("gaussian_mixture")} >= {"ceiling", "ddim_shrinkage"}
    assert experiments.ROOT == ROOT
    assert regenerate.HELP
