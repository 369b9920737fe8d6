"""Loading tables: what is accepted, and the one line that refuses the rest."""

import re
from dataclasses import replace

import numpy as np
import pytest

from command_line.output import UserError
from simulations.mixtures.real_data import groups_of, split_and_scale
from simulations.mixtures.tables import load_table, make_table


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((30, 3)), np.repeat([0, 1], 15)


def save_csv(path, rows, header=None):
    lines = ([",".join(header)] if header else []) + [",".join(str(cell) for cell in row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def csv_rows(data):
    x, y = data
    return [[*row, "sick" if label else "well"] for row, label in zip(x, y, strict=True)]


def test_built_in_tables():
    cancer = load_table("breast-cancer")
    assert cancer.x.shape == (569, 30)
    assert cancer.classes == ("benign", "malignant")
    assert (cancer.y > 0).sum() == 212
    digits = load_table("digits:8,3")
    assert digits.classes == ("3", "8")
    assert digits.x.shape == (357, 64)


@pytest.mark.parametrize(("x_key", "y_key"), [("x", "y"), ("X", "labels"), ("features", "target"), ("data", "label")])
def test_npz(tmp_path, data, x_key, y_key):
    np.savez(tmp_path / "a.npz", **{x_key: data[0], y_key: data[1]})
    table = load_table(str(tmp_path / "a.npz"))
    np.testing.assert_array_equal(table.x, data[0])
    np.testing.assert_array_equal(table.y, np.where(data[1] == 1, 1.0, -1.0))


def test_csv_with_header_label_column_and_text_labels(tmp_path, data):
    rows = [[tag, *row] for *row, tag in csv_rows(data)]
    table = load_table(save_csv(tmp_path / "a.csv", rows, ["state", "a", "b", "c"]), "state")
    np.testing.assert_array_equal(table.x, data[0])
    assert table.features == ("a", "b", "c")
    assert table.classes == ("sick", "well")
    np.testing.assert_array_equal(table.y, np.where(data[1] == 1, -1.0, 1.0))


def test_csv_without_header_takes_the_last_column(tmp_path, data):
    table = load_table(save_csv(tmp_path / "a.csv", csv_rows(data)))
    np.testing.assert_array_equal(table.x, data[0])
    numeric = load_table(save_csv(tmp_path / "b.csv", [[*row, int(label)] for row, label in zip(*data, strict=True)]))
    assert numeric.classes == ("0", "1")


def refuse(spec, pattern, label=None):
    with pytest.raises(UserError) as caught:
        load_table(str(spec), label)
    message = str(caught.value)
    assert re.search(pattern, message), message
    assert "\n" not in message


def test_unknown_names_and_files(tmp_path):
    np.savez(tmp_path / "b.npz", x=np.ones((3, 2)), y=np.arange(3))
    refuse(tmp_path / "b.npz", "--label state applies to csv files only", "state")
    refuse("breast-cancer", "--label x applies to csv", "x")
    refuse("breast-cancr", "did you mean 'breast-cancer'")
    refuse("digits:3", "two different digits")
    refuse("digits:3,3", "two different digits")
    refuse("digits:3,x", "two different digits")
    refuse(tmp_path / "none.csv", "no such file.*check the path")
    refuse(tmp_path / "none.npz", "no such file")
    refuse(tmp_path, "neither a known table")


@pytest.mark.parametrize("labels", [np.zeros(30), np.arange(30) % 3, np.arange(30) % 7])
def test_wrong_number_of_classes(tmp_path, data, labels):
    counted = {1: "1 class", 3: "3 classes", 7: "7 classes"}[len(np.unique(labels))]
    np.savez(tmp_path / "a.npz", x=data[0], y=labels)
    refuse(tmp_path / "a.npz", f"found {counted} .*exactly two")


def test_bad_npz(tmp_path, data):
    x, y = data
    path = tmp_path / "a.npz"

    def saved(**arrays):
        np.savez(path, **arrays)
        return path

    refuse(saved(x=x), "found x; needs features under")
    refuse(saved(x=np.array([{"a": 1}] * 30, dtype=object), y=y), "Python objects, which are never loaded")
    refuse(saved(x=x.astype(str), y=y), "not numbers; encode")
    refuse(saved(x=x[:0], y=y[:0]), "0 rows")
    refuse(saved(x=x, y=y[:20]), "30 rows of features but 20 labels")
    refuse(saved(x=x[:, 0], y=y), "have shape")
    refuse(saved(x=np.where(np.arange(30)[:, None] == 4, np.nan, x), y=y), "row 5, column 'column 1' holds nan; remove")
    refuse(saved(x=x, y=np.where(np.arange(30) == 2, np.nan, y)), "row 3 has no label")
    refuse(saved(x=x, y=np.where(np.arange(30) == 2, "nan", y.astype(str))), "row 3 has no label")
    refuse(saved(x=x, y=y + 1j), "labels are complex")
    refuse(saved(x=x, y=np.r_[np.zeros(28), 1, 1]), "class '1.0' has 2 rows; at least 10")
    path.write_bytes(path.read_bytes()[:100])
    refuse(path, "damaged or no npz")
    path.write_text("hello")
    refuse(path, "damaged or no npz")
    path.write_bytes(b"")
    refuse(path, "damaged or no npz")


def test_bad_csv(tmp_path, data):
    path, rows = tmp_path / "a.csv", csv_rows(data)
    path.write_text("", encoding="utf-8")
    refuse(path, "no rows")
    refuse(save_csv(path, [], ["a", "b", "label"]), "0 rows")
    refuse(save_csv(path, [*rows, ["1", "2"]]), "line 31 has 2 cells, the first has 4")
    refuse(save_csv(path, [*rows, [1, "tall", 2, "sick"]]), "line 31, column 'column 2' holds the text 'tall'")
    refuse(save_csv(path, [*rows, [1, "", 2, "sick"]]), "holds an empty cell")
    refuse(save_csv(path, [*rows, [1, "nan", 2, "sick"]]), "line 31, column 'column 2' holds nan")
    refuse(save_csv(path, [*rows, [1, 2, 3, ""]]), "line 31 has no label")
    refuse(save_csv(path, [[1], [2]]), "one column only")
    refuse(save_csv(path, [["1;2;a"], ["1;2;b"]]), "separated by semicolons; needs.*commas")
    refuse(save_csv(path, rows, ["a", "a", "c", "state"]), "two columns are called 'a'")
    refuse(save_csv(path, rows, ["a", "b", "c", "state"]), "--label 'stat' is no column.*did you mean 'state'", "stat")
    path.write_bytes(b"\xff\xfe\x00\x01")
    refuse(path, "not a utf-8 csv")


# Tables that were seen to go wrong.


@pytest.mark.parametrize("name", ["", "Unnamed: 2"])
def test_a_feature_without_a_name_is_a_feature(tmp_path, name):
    """Only whole numbers are an index of pandas."""
    x, y = noise()
    path = tmp_path / "t.csv"
    rows = [f"{a:.3f},{b:.3f},{c:.3f},{'yes' if label else 'no'}" for (a, b, c), label in zip(x, y, strict=True)]
    path.write_text("\n".join([f"age,bp,{name},sick", *rows]) + "\n")
    table = load_table(str(path), "sick")
    assert table.x.shape == (60, 3)
    assert not [note for note in table.notes if "numbers the rows" in note]


def noise(n=60, columns=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, columns)), np.repeat([0, 1], n // 2)


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("", np.arange(60)),  # as pandas writes its index
        ("Unnamed: 0", np.arange(60)),
        ("Unnamed: 0", np.tile(np.arange(30), 2)),  # of two tables put together
        ("index", np.arange(60) * 7),  # of rows that were chosen
        ("patient_id", np.random.default_rng(1).permutation(60) + 1000),
        ("PassengerId", np.random.default_rng(2).permutation(60) * 3),
        ("customer-id", np.arange(60) * 2 + 500),  # with gaps
        ("whatever", np.arange(1, 61)),  # of any name, in the order of the rows
    ],
)
def test_columns_that_number_the_rows_are_left_out_and_it_is_said(tmp_path, name, numbers):
    """Sorted by class they give the label away: pure noise measured .97."""
    x, y = noise()
    rows = [[number, *row, label] for number, row, label in zip(numbers, x, y, strict=True)]
    table = load_table(save_csv(tmp_path / "a.csv", rows, [name, "a", "b", "c", "y"]))
    np.testing.assert_array_equal(table.x, x)
    assert table.features == ("a", "b", "c")
    assert table.notes == (f"left out: column {name!r}, which numbers the rows",)
    assert table.described()[0].endswith("60 rows, 3 features; classes of 'y': '0' 30, '1' 30")


def test_row_numbers_without_a_header_or_in_an_npz(tmp_path):
    x, y = noise()
    rows = [[i, *row, label] for i, (row, label) in enumerate(zip(x, y, strict=True))]
    np.testing.assert_array_equal(load_table(save_csv(tmp_path / "a.csv", rows)).x, x)
    np.savez(tmp_path / "a.npz", x=np.column_stack([x, np.arange(60)]), y=y)
    np.testing.assert_array_equal(load_table(str(tmp_path / "a.npz")).x, x)
    np.savez(tmp_path / "b.npz", x=np.arange(60.0)[:, None], y=y)
    refuse(tmp_path / "b.npz", "numbers the rows, and there is no other; give features")
    shuffled = np.random.default_rng(3).permutation(60)
    np.savez(tmp_path / "d.npz", x=np.column_stack([x, shuffled]), y=y)  # without a name, every number of 0..59
    np.testing.assert_array_equal(load_table(str(tmp_path / "d.npz")).x, x)
    kept = load_table(save_csv(tmp_path / "c.csv", [[i % 50, *row, k] for i, (row, k) in enumerate(zip(x, y, strict=True))]))
    assert kept.x.shape == (60, 4)  # whole numbers that repeat number no rows


@pytest.mark.parametrize(
    ("name", "values"),
    [("income_rank", np.random.default_rng(4).permutation(60)), ("year", np.arange(1960, 2020)), ("dose", np.arange(60) * 5 + 3)],
)
def test_columns_that_may_mean_something_are_kept_and_named(tmp_path, name, values):
    x, y = noise()
    rows = [[number, *row, label] for number, row, label in zip(values, x, y, strict=True)]
    table = load_table(save_csv(tmp_path / "a.csv", rows, [name, "a", "b", "c", "y"]))
    assert table.features == (name, "a", "b", "c")
    assert table.notes == (f"kept: column {name!r}, with another whole number in every row; remove it if it only numbers them",)


def patients(tmp_path):
    """60 visits of 20 patients, ten of each class; the feature c is one number a patient."""
    x, y = noise()
    x[:, 2] = np.repeat(x[:20, 2], 3)
    rows = [[200 + i // 3, *row, label] for i, (row, label) in enumerate(zip(x, y, strict=True))]
    return x, save_csv(tmp_path / "visits.csv", rows, ["patient_id", "a", "b", "c", "y"])


def test_numbers_of_patients_that_repeat_are_told(tmp_path):
    _, path = patients(tmp_path)
    (note,) = load_table(path).notes
    assert note.startswith("kept: column 'patient_id', named like a number")
    assert "--group" in note


def test_a_group_is_no_feature_and_stays_on_one_side(tmp_path):
    x, path = patients(tmp_path)
    table = load_table(path, group="patient_id")
    np.testing.assert_array_equal(table.x, x)
    assert table.features == ("a", "b", "c")
    assert table.notes[-1].startswith("groups: 20, each on one side of the split")
    for seed in range(5):
        train, test, _ = split_and_scale(table, seed)
        sides = [set(np.round(half.x[:, 2], 9)) for half in (train, test)]
        assert not sides[0] & sides[1]
        assert [9 <= len(side) <= 11 for side in sides] == [True, True]
    train, test, _ = split_and_scale(load_table(path), 0)  # without --group, patients are on both sides
    assert set(np.round(train.x[:, 3], 9)) & set(np.round(test.x[:, 3], 9))


def test_groups_and_copies_hold_together_what_either_joins():
    """Rows 0 and 1 are of one group, row 2 is a copy of row 1: all three belong together."""
    x, y = noise(40, 5)
    x[21], x[2] = x[20], x[1]
    table = replace(make_table("t", x, y, tuple("abcde")), groups=np.array([0, 0, *range(2, 40)]))
    joined = groups_of(table)
    assert len(set(joined[:3].tolist())) == 1
    assert joined[20] == joined[21]
    assert len(np.unique(joined)) == 40 - 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"group": "patient"}, "--group 'patient' is no column of .*did you mean 'patient_id'"),
        ({"group": "y"}, "--group 'y': is the label column"),
        ({"group": "hospital"}, "class '0' has 1 groups; at least 4 are needed"),
    ],
)
def test_groups_that_cannot_be_are_refused(tmp_path, arguments, message):
    x, y = noise()
    rows = [[i // 3, label, *row, label] for i, (row, label) in enumerate(zip(x, y, strict=True))]
    path = save_csv(tmp_path / "a.csv", rows, ["patient_id", "hospital", "a", "b", "c", "y"])
    with pytest.raises(UserError, match=message):
        load_table(path, **arguments)
    with pytest.raises(UserError, match="applies to csv files only"):
        load_table("breast-cancer", group="age")


def test_a_row_without_a_group_and_copies_that_join_groups_are_refused(tmp_path):
    x, y = noise()
    names = ["patient_id", "a", "b", "c", "y"]
    ids = [f"p{i // 3}" for i in range(60)]
    rows = [[one, *row, label] for one, row, label in zip(["", *ids[1:]], x, y, strict=True)]
    with pytest.raises(UserError, match=r"--group patient_id: line 2 has none"):
        load_table(save_csv(tmp_path / "a.csv", rows, names), group="patient_id")
    x[::3] = 0.0  # a blank visit of every patient
    rows = [[one, *row, label] for one, row, label in zip(ids, x, y, strict=True)]
    with pytest.raises(UserError, match="class '0' has 1 groups; at least 4 are needed"):
        load_table(save_csv(tmp_path / "b.csv", rows, names), group="patient_id")


def test_rows_of_few_values_are_no_copies(tmp_path):
    """Three yes and no, 400 rows: eight different ones, as often as chance has it, and both labels for most."""
    rng = np.random.default_rng(5)
    x = rng.integers(0, 2, (400, 3))
    y = (rng.random(400) < 0.2 + 0.3 * x[:, 0]).astype(int)
    table = load_table(save_csv(tmp_path / "a.csv", [[*row, k] for row, k in zip(x, y, strict=True)], ["a", "b", "c", "y"]))
    assert table.x.shape == (400, 3)
    assert table.notes == ()


def test_copies_are_counted(tmp_path):
    x, y = noise(40)
    table = load_table(save_csv(tmp_path / "a.csv", [[*row, k] for row, k in zip(x, y, strict=True)] * 3))
    assert table.notes == ("copies: 120 rows are 40 different ones; copies stay on one side of the split",)
    torn = [[*row, k] for row, k in zip(x, y, strict=True)] + [[*x[0], 1]]
    assert load_table(save_csv(tmp_path / "b.csv", torn)).notes[0].endswith("1 of these carry both labels")
    refuse(save_csv(tmp_path / "c.csv", [[*x[i % 6], i % 2] for i in range(60)]), "class '0' has 3 different rows; at least 10")


@pytest.mark.parametrize(
    "header", [["0", "1", "2", "3"], ["1", "2", "3", "4"], ["2019", "2020", "2021", "group"], ["2019", "2020", "2021", "2022"]]
)
def test_a_header_of_numbers_is_no_row(tmp_path, header):
    x, y = noise()
    table = load_table(save_csv(tmp_path / "a.csv", [[*row, k] for row, k in zip(x, y, strict=True)], header))
    np.testing.assert_array_equal(table.x, x)
    assert table.features == tuple(header[:3])
    assert table.notes[0].startswith(f"header: the first row, {', '.join(header)}, is taken for the names")
    assert load_table(save_csv(tmp_path / "b.csv", [[*row, k] for row, k in zip(x, y, strict=True)])).notes == ()
    whole = [[i % 3, int(i % 7 > 2), 2 + i % 2] for i in range(60)]  # the first row, 0 0 2, is a row
    assert load_table(save_csv(tmp_path / "c.csv", [[0, 1, 2], *whole[1:]])).x.shape == (60, 2)


@pytest.mark.parametrize("cell", ["1_000", "١٢", "1,5", "０.5", "0x10", "1e", "--1"])
def test_what_other_programs_do_not_write_as_a_number_is_none(tmp_path, cell):
    x, y = noise()
    rows = [[*row, k] for row, k in zip(x, y, strict=True)]
    rows[7][1] = f'"{cell}"'
    refuse(save_csv(tmp_path / "a.csv", rows, ["a", "b", "c", "y"]), f"line 9, column 'b' holds the text {cell!r}, not a number")


@pytest.mark.parametrize("name", ["none", "NA", "Null", "nan"])
def test_a_class_may_be_called_none(tmp_path, name):
    x, y = noise()
    tags = np.where(y == 1, name, "some")
    table = load_table(save_csv(tmp_path / "a.csv", [[*row, tag] for row, tag in zip(x, tags, strict=True)], ["a", "b", "c", "y"]))
    assert set(table.classes) == {name, "some"}
    assert table.notes == (f"labels: {name!r} is taken for the name of a class, as there are two labels in all",)
    tags[3] = "else"  # of three labels one stands for a missing one
    refuse(
        save_csv(tmp_path / "b.csv", [[*row, tag] for row, tag in zip(x, tags, strict=True)], ["a", "b", "c", "y"]), "has no label"
    )


def test_a_column_that_is_the_label_once_more_is_told():
    """With it every accuracy is 1, which is no news about the other features."""
    rng = np.random.default_rng(5)
    y = np.repeat(["benign", "malignant"], 30)
    x = np.stack([rng.standard_normal(60), np.where(y == "benign", 2.0, 4.0), np.full(60, 3.0)], axis=1)
    assert make_table("made", x, y, ("size", "code", "constant")).notes == (
        "kept: column 'code', with one value for each class; remove it if it is the label once more",
    )
    x[0, 1] = 4.0
    assert make_table("made", x, y, ("size", "code", "constant")).notes == ()
