"""What code imports, directly or not, decides whether results and figures are current."""

import sys

import pytest

from command_line import sources
from command_line.sources import digest_of, imported

PACKAGES = ("sources_probe",)


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "sources_probe"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "a.py").write_text("from sources_probe import b\n")
    (folder / "b.py").write_text("def later():\n    import sources_probe.c\nimport numpy\n")
    (folder / "c.py").write_text("X = 1\n")
    (folder / "d.py").write_text("X = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    sources.module_path.cache_clear()
    yield folder
    sys.modules.pop("sources_probe", None)
    sources.module_path.cache_clear()


def test_imports_are_followed_through_modules_and_functions(package):
    found = imported("def f(run):\n    from sources_probe.a import thing\n    import torch\n", PACKAGES)
    assert found - {"sources_probe"} == {f"sources_probe.{name}" for name in "abc"}


def test_relative_imports_are_followed_too(package):
    (package / "a.py").write_text("from . import b\n")
    (package / "inner").mkdir()
    (package / "inner" / "__init__.py").write_text("from .e import X\n")
    (package / "inner" / "e.py").write_text("from ..d import X\n")
    found = imported("import sources_probe.a, sources_probe.inner\n", PACKAGES)
    assert found >= {f"sources_probe.{name}" for name in ("a", "b", "c", "d", "inner", "inner.e")}


def test_the_digest_sees_what_is_imported_and_nothing_else(package):
    source = "import sources_probe.a\n"
    before = digest_of(source, PACKAGES)
    (package / "d.py").write_text("X = 2\n")
    assert digest_of(source, PACKAGES) == before
    (package / "c.py").write_text("X = 2\n")
    assert digest_of(source, PACKAGES) != before
