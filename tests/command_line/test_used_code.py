"""Which code decides whether results and figures are current: what is used, name by name, and nothing else."""

import ast
import copy
import sys

import pytest

from command_line import used_code
from command_line.used_code import code_of_function, code_of_modules

PACKAGES = ("sources_probe",)
FILES = {
    "__init__.py": "from sources_probe.b import handed_on\n",
    "a.py": '''"""Module."""
import numpy
from sources_probe import b, handed_on
from sources_probe.types import Answer, Settings
from . import relative

LIMIT = 3
UNUSED = 4
TABLE = {"x": b.helper}
TABLE.update(y=relative.last)


def root(settings: Settings, apart: Answer = 0) -> Answer:
    """Says nothing."""
    # nor does this
    return TABLE["x"](LIMIT) + handed_on() + numpy.ones(1)


def apart():
    return UNUSED
''',
    "b.py": "DEEP = 1\n\n\ndef helper(x):\n    import sources_probe.c\n    return DEEP + sources_probe.c.X\n\n\n"
    "def handed_on():\n    from sources_probe.inner import e\n    return e.Y\n\n\ndef never():\n    return 0\n",
    "c.py": "X = 1\n",
    "relative.py": "def last():\n    return 5\n",
    "types.py": "class Answer:\n    x = 1\n\n\n"
    "class Settings:\n    steps: int = 1\n\n    def doubled(self):\n        return FACTOR * self.steps\n\n\nFACTOR = 2\n",
    "inner/__init__.py": "",
    "inner/e.py": "from ..c import X\n\nY = X + 1\nZ = 0\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "sources_probe"
    (folder / "inner").mkdir(parents=True)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    forget()
    yield folder
    forget()


def forget():
    for name in [name for name in sys.modules if name.partition(".")[0] in ("sources_probe", "sources_odd")]:
        sys.modules.pop(name)
    used_code.forget()


def digest():
    forget()
    from sources_probe.a import root
    from sources_probe.types import Settings

    return code_of_function(root, PACKAGES, [Settings]).digest()


def changed(folder, file, old, new):
    """Whether the digest of root sees this change, which is undone again."""
    before, text = digest(), (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    after = digest()
    (folder / file).write_text(text)
    return after != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("a.py", "LIMIT = 3", "LIMIT = 4"),
        ("a.py", "TABLE.update(y=", "TABLE.update(z="),
        ("a.py", "numpy.ones(1)", "numpy.ones(2)"),
        ("b.py", "DEEP = 1", "DEEP = 2"),
        ("b.py", "return e.Y", "return e.Y + 1"),
        ("c.py", "X = 1", "X = 2"),
        ("relative.py", "5", "6"),
        ("types.py", "FACTOR = 2", "FACTOR = 3"),
        ("types.py", "steps: int = 1", "steps: int = 2"),
        ("inner/e.py", "Y = X + 1", "Y = X + 2"),
    ],
)
def test_a_change_of_what_is_used_is_seen(package, file, old, new):
    assert changed(package, file, old, new)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("a.py", "Says nothing.", "Says something."),
        ("a.py", "    # nor does this\n", ""),
        ("a.py", "root(settings: Settings, apart: Answer = 0) -> Answer", "root(settings, apart=0)"),
        ("a.py", "LIMIT = 3", "LIMIT = (\n    3\n)"),
        ("a.py", "UNUSED = 4", "UNUSED = 5"),
        ("b.py", "return 0", "return 1"),
        ("types.py", "x = 1", "x = 2"),  # where a type lives decides nothing
        ("a.py", "return UNUSED", "return UNUSED + 1"),  # root has an argument of this name
        ("inner/e.py", "Z = 0", "Z = 1"),
        ("types.py", "class Settings:\n", 'class Settings:\n    """More."""\n\n'),
    ],
)
def test_comments_annotations_and_what_is_not_used_are_not_seen(package, file, old, new):
    assert not changed(package, file, old, new)


def test_packages_from_elsewhere_are_named(package):
    from sources_probe.a import apart, root

    assert "numpy" in code_of_function(root, PACKAGES).foreign
    assert "numpy" not in code_of_function(apart, PACKAGES).foreign


def test_of_a_whole_module_everything_counts(package):
    before = code_of_modules(["sources_probe.a"], PACKAGES).digest()
    (package / "a.py").write_text(FILES["a.py"].replace("UNUSED = 4", "UNUSED = 5"))
    forget()
    assert code_of_modules(["sources_probe.a"], PACKAGES).digest() != before


def test_functions_within_functions_count_too():
    def made(number):
        def inner():
            return number + sources_constant()

        return inner

    def sources_constant():
        return 1

    one, other = code_of_function(made, PACKAGES), code_of_function(sources_constant, PACKAGES)
    assert one.digest() != other.digest()


UNUSUAL = {
    "a loop": ("for i in range(1):\n    def root():\n        return i + 5\n", "i + 5"),
    "a condition": ("if True:\n    X = 5\nelse:\n    X = 6\n\ndef root():\n    return X\n", "X = 6"),
    "a loop over a table": ("T = {}\nfor i in (5, 6):\n    T[i] = 1\n\ndef root():\n    return T\n", "(5, 6)"),
    "an entry": ("T = {}\nT['a'] = 5\n\ndef root():\n    return T\n", "5"),
    "an attempt": ("try:\n    from x import f\nexcept ImportError:\n    f = 5\n\ndef root():\n    return f\n", "5"),
    "a registry": (
        "T = []\ndef listed(f):\n    T.append(f)\n    return f\n\n@listed\ndef one():\n    return 5\n\ndef root():\n    return T\n",
        "5",
    ),
    "a registry's list": ("T = []\n\n@T.append\ndef one():\n    return 5\n\ndef root():\n    return T\n", "5"),
    "a local import": ("def f():\n    return 0\n\ndef root():\n    from sources_odd.other import f\n    return f()\n", "other: 7"),
    "two modules of a package": (
        "import sources_odd.more\nimport sources_odd.other\n\ndef root():\n    return sources_odd.other.f()\n",
        "other: 7",
    ),
    "two modules the other way round": (
        "import sources_odd.other\nimport sources_odd.more\n\ndef root():\n    return sources_odd.other.f()\n",
        "other: 7",
    ),
    "a star": ("from sources_odd.other import *\n\ndef root():\n    return f()\n", "other: 7"),
    "a name made by __getattr__": ("from sources_odd import more\n\ndef root():\n    return more.made\n", "more: 8"),
    "a class within a function": ("X = 5\n\ndef root():\n    class Y:\n        X = X\n    return Y.X\n", "X = 5"),
    "an else": ("if __name__ == 'x':\n    X = 0\nelse:\n    X = 5\n\ndef root():\n    return X\n", "5"),
    "a value that is raised": ("def f():\n    return 5\n\ndef root():\n    raise StopIteration(f())\n", "5"),
    "a statement for all": ("import torch\ntorch.set_default_dtype(5)\n\ndef root():\n    return 1\n", "5"),
}


@pytest.mark.parametrize("form", UNUSUAL)
def test_unusual_code_is_followed_too(tmp_path, monkeypatch, form):
    """Each is changed at one place, where a follower of plain definitions alone would see nothing."""
    folder, (text, old) = tmp_path / "sources_odd", UNUSUAL[form]
    folder.mkdir()
    others = {"__init__": "", "other": "def f():\n    return 7\n", "more": "def __getattr__(name):\n    return 8\n"}
    monkeypatch.syspath_prepend(tmp_path)

    def digest_of():
        for name, content in {**others, "a": text}.items():
            (folder / f"{name}.py").write_text(content)
        forget()
        return used_code._follow([("sources_odd.a", "root")], ("sources_odd",), []).digest()

    before = digest_of()
    assert digest_of() == before
    place, _, number = old.rpartition(": ")
    if place:
        others[place] = others[place].replace(number, "0")
    else:
        text = text.replace(old, old.replace("5", "9").replace("6", "9"))
    assert digest_of() != before
    forget()


def test_the_text_of_a_tree_is_the_same_in_every_version_of_python():
    """Python 3.12 adds type_params, 3.12.1 empty texts, 3.13 leaves empty lists out of ast.dump."""
    tree = ast.parse("@d\ndef f(x, *, y=None):\n    return f'{x!r:>{y}}' if x else ()").body[0]
    with_more = copy.deepcopy(tree)
    with_more.type_params = []
    with_more._fields = tuple(dict.fromkeys((*with_more._fields, "type_params")))
    (text,) = (part for part in ast.walk(with_more) if isinstance(part, ast.JoinedStr) and part.values[0].__class__ is ast.Constant)
    text.values.append(ast.Constant(value=""))  # as 3.12.1 does
    assert used_code._as_text(with_more) == used_code._as_text(tree)
    assert used_code._as_text(tree) == (
        "FunctionDef(name='f', args=arguments(args=[arg(arg='x')], kwonlyargs=[arg(arg='y')], kw_defaults=[Constant()]), body=[Return("
        "value=IfExp(test=Name(id='x'), body=JoinedStr(values=[FormattedValue(value=Name(id='x'), conversion=114, format_spec=JoinedStr("
        "values=[Constant(value='>'), FormattedValue(value=Name(id='y'), conversion=-1)]))]), orelse=Tuple()))], "
        "decorator_list=[Name(id='d')])"
    )
