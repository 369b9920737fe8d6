"""Loading tables: what is accepted, and the one line that refuses the rest."""

import re

import numpy as np
import pytest

from command_line.output import UserError
from simulations.tables import load_table


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
    np.savez(tmp_path / "a.npz", x=data[0], y=labels)
    refuse(tmp_path / "a.npz", f"found {len(np.unique(labels))} classes.*exactly two")


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
    refuse(save_csv(path, [*rows, [1, "nan", 2, "sick"]]), "row 31, column 'column 2' holds nan")
    refuse(save_csv(path, [*rows, [1, 2, 3, ""]]), "row 31 has no label")
    refuse(save_csv(path, [[1], [2]]), "one column only")
    refuse(save_csv(path, [["1;2;a"], ["1;2;b"]]), "separated by semicolons; needs.*commas")
    refuse(save_csv(path, rows, ["a", "a", "c", "state"]), "two columns are called 'a'")
    refuse(save_csv(path, rows, ["a", "b", "c", "state"]), "--label 'stat' is no column.*did you mean 'state'", "stat")
    path.write_bytes(b"\xff\xfe\x00\x01")
    refuse(path, "not a utf-8 csv")
