"""A folder holds one experiment."""

import json
import os
import re
from pathlib import Path

import pytest

from command_line.folder_claim import check_claim, claim, claim_anew, finish_claim
from command_line.output import UserError


def test_another_experiment_is_refused_and_the_differences_named(tmp_path):
    claim(tmp_path, {"eps": 0.1, "methods": ("real",), "out": tmp_path, "workers": 1}, growing=("methods",))
    before = (tmp_path / "settings.json").read_bytes()
    same = {"eps": 0.1, "methods": ("real", "unguided"), "out": None, "workers": 2}
    check_claim(tmp_path, same, growing=("methods",))  # one method more is the same experiment
    with pytest.raises(UserError) as refused:
        claim(tmp_path, {**same, "eps": 0.2, "methods": ("unguided",)}, growing=("methods",))
    assert "eps 0.1 there, 0.2 here; methods real there, unguided here" in str(refused.value)
    assert f"for example {tmp_path}-2, or --force" in str(refused.value)
    assert (tmp_path / "settings.json").read_bytes() == before
    claim(tmp_path, {**same, "eps": 0.2}, growing=("methods",), force=True)
    assert json.loads((tmp_path / "settings.json").read_text()) == {"eps": 0.2, "methods": ["real", "unguided"]}


def test_folders_of_earlier_versions_are_known_by_their_summary(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps({"settings": {"seed": 3}}))
    claim(tmp_path, {"seed": 3, "newer": True})
    (tmp_path / "settings.json").unlink()
    with pytest.raises(UserError, match="seed 3 there, 4 here"):
        claim(tmp_path, {"seed": 4, "newer": True})
    for damage in ("{", "[]", '{"settings": 3}'):
        (tmp_path / "summary.json").write_text(damage)
        with pytest.raises(UserError, match="is damaged, so what the folder holds is not known"):
            claim(tmp_path, {"seed": 3})
    claim(tmp_path, {"seed": 3}, force=True)


def test_the_differing_entries_of_long_lists_are_named(tmp_path):
    long = [f"--flag-{i}" for i in range(40)]
    claim(tmp_path, {"base": [*long, "--eps", "0.1"]})
    with pytest.raises(UserError, match=r"\(base 0.1 there, 0.2 here\); what it made"):
        check_claim(tmp_path, {"base": [*long, "--eps", "0.2"]})


def test_a_setting_that_was_not_given_is_called_default(tmp_path):
    claim(tmp_path, {"eps": (), "label": None, "norms": ("2",)})
    with pytest.raises(UserError, match=r"\(eps default there, 0.1 here; label default there, y here; norms 2 there, inf here\)"):
        check_claim(tmp_path, {"eps": (0.1,), "label": "y", "norms": ("inf",)})


def test_places_of_earlier_versions_are_the_same_place(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "summary.json").write_text(json.dumps({"settings": {"data_dir": "data"}}))
    check_claim(tmp_path, {"data_dir": tmp_path / "data"})


def test_many_differences_are_counted_and_paths_are_places(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    claim(tmp_path, dict.fromkeys("abcde", 1) | {"data_dir": tmp_path / "data"})
    from pathlib import Path

    check_claim(tmp_path, dict.fromkeys("abcde", 1) | {"data_dir": Path("data")})
    with pytest.raises(UserError, match=r"a 1 there, 2 here; b 1 there, 2 here; c 1 there, 2 here and 2 more"):
        check_claim(tmp_path, dict.fromkeys("abcde", 2))


def test_a_file_named_as_text_is_the_same_file_the_second_time(tmp_path, monkeypatch):
    """As --data measurements.csv of gaussian_mixture.py, whose setting is text."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("x")
    claim(tmp_path, {"data": "a.csv"})
    check_claim(tmp_path, {"data": "a.csv"})
    check_claim(tmp_path, {"data": str(tmp_path / "a.csv")})
    for other in ("b.csv", "nowhere.csv", ""):
        with pytest.raises(UserError, match=r"data a\.csv there"):
            check_claim(tmp_path, {"data": other})


def test_a_run_that_begins_anew_has_no_summary_and_with_force_no_old_tables(tmp_path):
    """Or an interrupted run would look like a finished one, and tables of two experiments would lie side by side."""
    (tmp_path / "mine.csv").write_text("of the user")
    os.utime(tmp_path / "mine.csv", (1, 1))
    claim_anew(tmp_path, {"eps": 0.1})
    (tmp_path / "curve.csv").write_text("a")
    claim_anew(tmp_path, {"eps": 0.1})  # interrupted, and once more
    (tmp_path / "curve.png").write_text("b")
    finish_claim(tmp_path, {"settings": {"eps": 0.1}})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"settings": {"eps": 0.1}, "files": ["curve.csv", "curve.png"]}
    with pytest.raises(UserError, match=r"eps 0\.1 there, 0\.2 here"):
        claim_anew(tmp_path, {"eps": 0.2})
    assert (tmp_path / "summary.json").is_file()
    claim_anew(tmp_path, {"eps": 0.2}, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.csv", "settings.json", "unfinished.json"]
    for name in ("curve.csv", "curve.png"):  # interrupted, so no summary names them
        (tmp_path / name).write_text("of 0.2")
    claim_anew(tmp_path, {"eps": 0.25}, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.csv", "settings.json", "unfinished.json"]
    (tmp_path / "summary.json").write_text("{")
    claim_anew(tmp_path, {"eps": 0.3}, force=True)
    assert not (tmp_path / "summary.json").exists()


def test_data_that_lie_in_the_folder_of_results_are_never_removed(tmp_path):
    """They are a table like those that are written, and may be edited between two runs."""
    (tmp_path / "mine.csv").write_text("of the user")
    claim_anew(tmp_path, {"eps": 0.1})
    for name in ("curve.csv", "mine.csv"):
        (tmp_path / name).write_text("later")
    claim_anew(tmp_path, {"eps": 0.1})
    finish_claim(tmp_path, {})
    assert json.loads((tmp_path / "summary.json").read_text())["files"] == ["curve.csv"]
    claim_anew(tmp_path, {"eps": 0.1})  # the table of before is there, and is the run's all the same
    (tmp_path / "curve.csv").write_text("again")
    finish_claim(tmp_path, {})
    assert json.loads((tmp_path / "summary.json").read_text())["files"] == ["curve.csv"]
    claim_anew(tmp_path, {"eps": 0.2}, force=True)
    (tmp_path / "mine.csv").write_text("later still")
    claim_anew(tmp_path, {"eps": 0.3}, force=True)
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["mine.csv"]


@pytest.mark.parametrize("name", [".", "..", "../here"])
def test_the_folder_one_stands_in_is_refused_with_a_name_beside_it(tmp_path, monkeypatch, name):
    (tmp_path / "here" / "in").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" if name != ".." else tmp_path / "here" / "in")
    claim(tmp_path / "here", {"eps": 0.1})
    with pytest.raises(UserError) as refused:
        check_claim(Path(name), {"eps": 0.2})
    beside = Path(re.search(r"for example (\S+),", str(refused.value))[1])
    assert beside.resolve() == tmp_path / "here-2"


def test_a_folder_of_another_command_or_program_is_refused(tmp_path):
    """Two commands may have no setting in common, or only settings that are equal."""
    (tmp_path / "a").mkdir()
    claim(tmp_path / "a", {"experiment": "search", "base": []})
    with pytest.raises(UserError, match="experiment search there, sweep here"):
        claim(tmp_path / "a", {"experiment": "sweep", "base": [], "runs": ["a"]})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "settings.json").write_text('{"editor.fontSize": 12}')
    with pytest.raises(UserError, match="settings of another program"):
        claim(tmp_path / "b", {"experiment": "sweep", "base": []})
    assert "fontSize" in (tmp_path / "b" / "settings.json").read_text()


def test_files_are_those_of_the_run_whatever_the_clock_of_the_disk_says(tmp_path, monkeypatch):
    """On a network disk whose clock is a minute behind ours, a run of a minute had written nothing."""
    monkeypatch.setattr("time.time", lambda: 0.0)
    claim_anew(tmp_path, {"seed": 1})
    begun = json.loads((tmp_path / "unfinished.json").read_text())
    behind = (tmp_path / "unfinished.json").stat().st_mtime - 60
    assert abs(begun["since"] - 60 - behind) < 5
    (tmp_path / "unfinished.json").write_text(json.dumps({**begun, "since": behind}))
    for name, later in (("old.csv", -1), ("new.csv", 1)):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (behind + later, behind + later))
    finish_claim(tmp_path, {})
    assert json.loads((tmp_path / "summary.json").read_text())["files"] == ["new.csv"]
