"""Which code of the project a function or a module uses: a result or picture is made again only if that code changed.

Code is followed name by name: from a function to the functions, classes and constants that it names, in any module, and on from those.
It is compared as a syntax tree: comments, docstrings, line breaks and function annotations do not count.
"""

from __future__ import annotations

import ast
import copy
import functools
import hashlib
import importlib.util
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WHOLE = "*"
"""Instead of a name: everything that a module defines."""
Place = tuple[str, str]
"""(module, name)."""


@dataclass(frozen=True)
class Code:
    """The code that something uses. trees: {module.name: syntax tree as text} of the project. foreign: other packages, by import name."""

    trees: dict[str, str]
    foreign: frozenset[str]

    def digest(self) -> str:
        """Checksum of the trees."""
        return hashlib.sha256("\n".join(f"{name} {self.trees[name]}" for name in sorted(self.trees)).encode()).hexdigest()

    @property
    def modules(self) -> set[str]:
        """Modules of the project that contain used code."""
        return {name.partition(":")[0] for name in self.trees}


@dataclass
class Module:
    """defined: {name: top-level statements that define or change it}. imported: {name: (module, name in it, or "")}."""

    name: str
    package: str
    defined: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imported: dict[str, Place] = field(default_factory=dict)
    read: dict[str, tuple[str, list[Place]]] = field(default_factory=dict)
    """{name: (its tree as text, places that it names)}, filled on demand."""


def code_of_function(function: Callable[..., Any], packages: tuple[str, ...], classes: Iterable[type] = ()) -> Code:
    """The code from these packages and its own that a function uses, and that of these classes, whose instances it is passed."""
    roots = [(kind.__module__, _top(kind.__qualname__)) for given in classes for kind in given.__mro__]
    packages = (*packages, _top(function.__module__))
    home = module_named(function.__module__, packages) or Module(function.__module__, "")
    if "<locals>" not in function.__qualname__ and home.defined:
        return _follow([*roots, (home.name, _top(function.__qualname__))], packages, [])
    source = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return _follow(roots, packages, [(home, function.__qualname__, source.body)])


def code_of_modules(modules: Iterable[str], packages: tuple[str, ...]) -> Code:
    """The code from these packages that these modules use, including everything they define."""
    return _follow([(name, WHOLE) for name in modules], packages, [])


def _follow(roots: list[Place], packages: tuple[str, ...], begun: list[tuple[Module, str, list[ast.stmt]]]) -> Code:
    trees: dict[str, str] = {}
    foreign: set[str] = set()
    waiting, seen = list(roots), set[Place]()

    def take(module: Module, name: str, statements: list[ast.stmt]) -> None:
        if name not in module.read:
            used = [place for statement in statements for place in _used(statement, module, packages)]
            module.read[name] = "\n".join(map(_as_text, statements)), used
        trees[f"{module.name}:{name}"], named = module.read[name]
        waiting.extend(named)

    for module, name, statements in begun:
        take(module, name, statements)
    while waiting:
        place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        name, wanted = place
        found = module_named(name, packages)
        if found is None:
            foreign.add(_top(name))
        elif wanted == WHOLE:
            waiting.extend((name, each) for each in found.defined)
        elif wanted in found.defined:
            take(found, wanted, found.defined[wanted])
        elif wanted in found.imported:  # re-exported
            waiting.append(_target(*found.imported[wanted], packages))
        elif module_named(f"{name}.{wanted}", packages) is not None:
            waiting.append((f"{name}.{wanted}", WHOLE))
    return Code(trees, frozenset(foreign))


def _used(statement: ast.stmt, module: Module, packages: tuple[str, ...]) -> Iterator[Place]:
    """Places that a statement names, without function annotations and its own local names."""
    known = module.imported | dict(_imports(statement, module.package))
    parts = {id(node.value): node.attr for node in ast.walk(statement) if isinstance(node, ast.Attribute)}
    for node in _named(statement, frozenset()):
        if node.id in known and node.id not in module.defined:
            source, name = known[node.id]
            attribute = parts.get(id(node))
            if not name:  # import a.b as c; c.d
                yield source, attribute or WHOLE
            elif attribute is not None and module_named(f"{source}.{name}", packages) is not None:  # from a import b; b.c
                yield f"{source}.{name}", attribute
            else:
                yield source, name
        elif node.id in module.defined:
            yield module.name, node.id


def _named(node: ast.AST, local: frozenset[str]) -> Iterator[ast.Name]:
    """Names within a node, except those that are local to the enclosing functions."""
    if isinstance(node, ast.Name):
        if node.id not in local:
            yield node
        return
    within = local
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        within = local | _locals_of(node)
    skipped = SKIPPED.get(type(node), ())
    for name, value in ast.iter_fields(node):
        inner = within if name == "body" else local  # defaults and decorators belong to the enclosing scope
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name not in skipped:
                yield from _named(child, inner)


SKIPPED: dict[type[ast.AST], tuple[str, ...]] = {
    ast.FunctionDef: ("returns",),
    ast.AsyncFunctionDef: ("returns",),
    ast.arg: ("annotation",),
    ast.AnnAssign: ("annotation",),
}
"""Annotations: the module of a type does not affect the result."""


def _locals_of(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> frozenset[str]:
    """Arguments of a function and the names it assigns; imported names count as what they import."""
    arguments = function.args
    found = {each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    found |= {each.arg for each in (arguments.vararg, arguments.kwarg) if each is not None}
    waiting: list[ast.AST] = list(function.body) if isinstance(function.body, list) else [function.body]
    outer: set[str] = set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        if isinstance(node, ast.Global):
            outer.update(node.names)
        if not isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.comprehension
        ):  # these have their own scopes
            waiting.extend(ast.iter_child_nodes(node))
    found -= outer
    return frozenset(found)


def _target(source: str, name: str, packages: tuple[str, ...]) -> Place:
    if name and module_named(f"{source}.{name}", packages) is not None:
        return f"{source}.{name}", WHOLE
    return source, name or WHOLE


class _Bare(ast.NodeTransformer):
    """Removes docstrings, other bare strings, and function annotations."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [entry for entry in body if not _is_text(entry)]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
        return node


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _as_text(statement: ast.stmt) -> str:
    return ast.dump(_Bare().visit(copy.deepcopy(statement)))


def _imports(node: ast.AST, package: str) -> Iterator[tuple[str, Place]]:
    """(name, what it refers to) for the imports within a node; `from . import x` is resolved as in a module of this package."""
    for found in ast.walk(node):
        if isinstance(found, ast.Import):
            for alias in found.names:
                whole = "" if alias.asname or "." not in alias.name else WHOLE  # for `import a.b`, all of b counts
                yield alias.asname or _top(alias.name), (alias.name, whole)
        if isinstance(found, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - found.level + 1] if found.level else []
            module = ".".join([*above, *([found.module] if found.module else [])])
            for alias in found.names:
                yield alias.asname or alias.name, (module, alias.name)


def module_named(name: str, packages: tuple[str, ...]) -> Module | None:
    """A module of these packages, parsed; None for anything else."""
    path = module_path(name) if _top(name) in packages else None
    return None if path is None else _parsed(name, path)


@functools.cache
def _parsed(name: str, path: Path) -> Module:
    module = Module(name, name if path.stem == "__init__" else name.rpartition(".")[0])
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    module.imported.update(pair for statement in statements for pair in _imports_at_top(statement, module.package))
    loose = []
    for statement in statements:
        made = list(_made_by(statement))
        for each in made:
            module.defined.setdefault(each, []).append(statement)
        if not made and not isinstance(statement, ast.Import | ast.ImportFrom) and not _is_text(statement):
            loose.append(statement)
    for statement in loose:  # X.update(...), for example, changes X
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and node.id in module.defined and statement not in module.defined[node.id]:
                module.defined[node.id].append(statement)
    return module


def _imports_at_top(statement: ast.stmt, package: str) -> Iterator[tuple[str, Place]]:
    if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield from _imports(statement, package)


def _made_by(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    elif not isinstance(statement, ast.Import | ast.ImportFrom):
        waiting: list[ast.AST] = [statement]
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id
            if not isinstance(node, ast.comprehension):  # its names are local to it
                waiting.extend(ast.iter_child_nodes(node))


@functools.cache
def module_path(name: str) -> Path | None:
    """File of a module, or None if there is none."""
    try:
        spec = importlib.util.find_spec(name)
    except (ModuleNotFoundError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


def _top(qualified: str) -> str:
    return qualified.partition(".")[0]
