"""Which modules of the project a piece of code imports: a result or a picture is made anew when one of them changed."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path


def imported(source: str, packages: tuple[str, ...]) -> set[str]:
    """Names of the modules of these packages that this source imports, directly or through others, wherever in it."""
    found: set[str] = set()
    waiting = [(source, "")]
    while waiting:
        text, package = waiting.pop()
        for name in _named(ast.parse(text), package):
            path = module_path(name, packages)
            if path is not None and name not in found:
                found.add(name)
                waiting.append((path.read_text(encoding="utf-8"), name if path.stem == "__init__" else name.rpartition(".")[0]))
    return found


def digest_of(source: str, packages: tuple[str, ...]) -> str:
    """Checksum of a source and of every module of these packages that it imports, directly or through others."""
    paths = {name: module_path(name, packages) for name in sorted(imported(source, packages))}
    content = {name: path.read_text(encoding="utf-8") for name, path in paths.items() if path is not None}
    return hashlib.sha256(json.dumps([source, content]).encode()).hexdigest()


def _named(tree: ast.AST, package: str) -> Iterable[str]:
    """Modules, and names that may be modules; `from . import x` means what it does in a module of this package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (module, *(f"{module}.{alias.name}" for alias in node.names))


@functools.cache
def module_path(name: str, packages: tuple[str, ...]) -> Path | None:
    """File of a module of these packages, None for anything else."""
    if name.split(".", maxsplit=1)[0] not in packages:
        return None
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None
