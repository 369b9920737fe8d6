"""Which code of the project a function or a module uses: a result or picture is made again only if that code changed.

Code is followed name by name: from a function to the functions, classes and constants that it names, in any module, and on from those.
It is compared as a syntax tree: comments, docstrings, line breaks, annotations of functions and the words of errors do not count.
Where a name cannot be followed exactly, more is taken: every definition of it, or the whole module. Names that exist only as text
(`globals()`, `__subclasses__()`) cannot be followed; tests/test_repository.py forbids them.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WHOLE = STAR = "*"
"""Instead of a name: everything that a module defines; also the name in `from module import *`."""
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
    """defined: {name: top-level statements that define or change it}. imported: {name: [(module, name in it, or "")]}.

    always: statements that change no name, but perhaps something else, such as `torch.set_default_dtype(...)`.
    """

    name: str
    package: str
    defined: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imported: dict[str, list[Place]] = field(default_factory=dict)
    always: list[ast.stmt] = field(default_factory=list)
    read: dict[str, tuple[str, list[Place]]] = field(default_factory=dict)
    """{name: (its tree as text, places that it names)}, filled on demand. All statements are bare, see _Bare."""


def code_of_function(function: Callable[..., Any], packages: tuple[str, ...], classes: Iterable[type] = ()) -> Code:
    """The code from these packages and its own that a function uses, and that of these classes, whose instances it is passed."""
    roots = [(kind.__module__, _top(kind.__qualname__)) for given in classes for kind in given.__mro__]
    packages = (*packages, _top(function.__module__))
    home = module_named(function.__module__, packages) or Module(function.__module__, "")
    if "<locals>" not in function.__qualname__ and home.defined:
        return _follow([*roots, (home.name, _top(function.__qualname__))], packages, [])
    source = [_Bare().visit(statement) for statement in ast.parse(textwrap.dedent(inspect.getsource(function))).body]
    return _follow(roots, packages, [(home, function.__qualname__, source)])


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
            continue
        if found.always and f"{name}:" not in trees:
            take(found, "", found.always)
        inner = f"{name}.{wanted}"
        waiting.extend(_target(*place, packages) for place in found.imported.get(wanted, ()))  # handed on
        if wanted in found.defined:
            take(found, wanted, found.defined[wanted])
        elif wanted not in found.imported and module_named(inner, packages) is not None:
            waiting.append((inner, WHOLE))
        elif wanted not in found.imported:  # everything, or a name that is made in another way
            waiting.extend((name, each) for each in found.defined)
            waiting.extend(_target(*place, packages) for place in found.imported.get(STAR, ()))
    return Code(trees, frozenset(foreign))


def _used(statement: ast.stmt, module: Module, packages: tuple[str, ...]) -> Iterator[Place]:
    """Places that a statement names, without its own local names; of a name with several meanings, all."""
    inside = _by_name(_imports(statement, module.package))
    parts = {id(node.value): node.attr for node in ast.walk(statement) if isinstance(node, ast.Attribute)}
    for node in _named(statement, frozenset()):
        attribute = parts.get(id(node))
        for source, name in {*inside.get(node.id, ()), *module.imported.get(node.id, ())}:
            if not name:  # import a.b as c; c.d
                yield source, attribute or WHOLE
            elif attribute is not None and module_named(f"{source}.{name}", packages) is not None:  # from a import b; b.c
                yield f"{source}.{name}", attribute
            else:
                yield source, name
        if node.id in module.defined:
            yield module.name, node.id
    yield from module.imported.get(STAR, ())


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


SKIPPED: dict[type[ast.AST], tuple[str, ...]] = {ast.AnnAssign: ("annotation",)}
"""The module of a type does not affect the result; that a field has one does, in a dataclass."""


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
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda | ast.comprehension):
            waiting.extend(ast.iter_child_nodes(node))  # the others have their own scopes
    found -= outer
    return frozenset(found)


def _target(source: str, name: str, packages: tuple[str, ...]) -> Place:
    if name and module_named(f"{source}.{name}", packages) is not None:
        return f"{source}.{name}", WHOLE
    return source, name or WHOLE


class _Bare(ast.NodeTransformer):
    """Removes docstrings, other bare strings, annotations of functions, and the words of errors."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            node.exc.args = [value for value in node.exc.args if not _says(value)]
        if isinstance(node, ast.Assert):
            node.msg = None
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [entry for entry in body if not _is_text(entry)]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
        return node


def _says(value: ast.expr) -> bool:
    """Whether a value is a message: text, or made of text."""
    parts = list(ast.walk(value))
    return any(
        isinstance(each, ast.JoinedStr) or (isinstance(each, ast.Constant) and isinstance(each.value, str)) for each in parts
    )


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _as_text(value: Any) -> str:
    """A syntax tree as text. Without empty fields, because ast.dump differs between versions of Python in these."""
    if isinstance(value, ast.AST):
        shown = [(name, entry) for name, entry in ast.iter_fields(value) if name not in ("ctx", "kind", "type_comment")]
        if isinstance(value, ast.JoinedStr):  # to which Python 3.12.1 adds empty texts
            shown = [(name, [part for part in parts if getattr(part, "value", None) != ""]) for name, parts in shown]
        return (
            f"{type(value).__name__}({', '.join(f'{name}={_as_text(entry)}' for name, entry in shown if entry not in (None, []))})"
        )
    return f"[{', '.join(map(_as_text, value))}]" if isinstance(value, list) else repr(value)


def _by_name(pairs: Iterable[tuple[str, Place]]) -> dict[str, list[Place]]:
    found: dict[str, list[Place]] = {}
    for name, place in pairs:
        found.setdefault(name, []).append(place)
    return found


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
    bare = [_Bare().visit(statement) for statement in ast.parse(path.read_text(encoding="utf-8")).body if not _is_text(statement)]
    statements = [each for statement in bare for each in _with_effect(statement)]
    module.imported = _by_name(pair for statement in statements for pair in _imports_at_top(statement, module.package))
    statements = [each for each in statements if not isinstance(each, ast.Import | ast.ImportFrom)]
    for statement in statements:
        for each in _made_by(statement):
            module.defined.setdefault(each, []).append(statement)
    for statement in statements:
        changed = _reached(_changed_by(statement), module)
        for each in changed:
            if statement not in module.defined[each]:
                module.defined[each].append(statement)
        if not changed and not _made_by(statement):
            module.always.append(statement)
    return module


def _with_effect(statement: ast.stmt) -> list[ast.stmt]:
    """The statement, without what runs only in a type checker or in a program."""
    test = ast.unparse(statement.test) if isinstance(statement, ast.If) else ""
    if isinstance(statement, ast.If) and (test in ("TYPE_CHECKING", "typing.TYPE_CHECKING") or test.startswith("__name__ == ")):
        return statement.orelse
    return [statement]


def _imports_at_top(statement: ast.stmt, package: str) -> Iterator[tuple[str, Place]]:
    if not isinstance(statement, DEFINITIONS):
        yield from _imports(statement, package)


DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _made_by(statement: ast.stmt) -> set[str]:
    """Names that a top-level statement defines, also within a `for`, `if`, `try` or `with`."""
    found = set()
    waiting: list[ast.AST] = [statement]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        if isinstance(node, DEFINITIONS):
            found.add(node.name)
        elif not isinstance(node, ast.comprehension):  # its names are local to it
            waiting.extend(ast.iter_child_nodes(node))
    return found


def _changed_by(statement: ast.stmt) -> set[str]:
    """Names whose values a top-level statement may change: TABLE.update(...), TABLE["x"] = 1, @registered, for ...: TABLE[...] = ...

    An assignment changes what it assigns to, not what is on its right; a definition, what its decorators name.
    """
    parts: list[ast.AST] = [statement]
    if isinstance(statement, DEFINITIONS):
        parts = list(statement.decorator_list)
    elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        parts = list(statement.targets if isinstance(statement, ast.Assign) else [statement.target])
    return {node.id for part in parts for node in ast.walk(part) if isinstance(node, ast.Name)}


def _reached(names: set[str], module: Module) -> set[str]:
    """Those of the names that the module defines, and what is named where they are defined: @registered changes the list it appends to."""
    found, waiting = set[str](), list(names)
    while waiting:
        name = waiting.pop()
        if name in module.defined and name not in found:
            found.add(name)
            waiting.extend(node.id for each in module.defined[name] for node in ast.walk(each) if isinstance(node, ast.Name))
    return found


def forget() -> None:
    """Read all sources again when they are needed next."""
    _parsed.cache_clear()
    module_path.cache_clear()


@functools.cache
def module_path(name: str) -> Path | None:
    """File of a module, or None if there is none."""
    parent = module_path(name.rpartition(".")[0]) if "." in name else None
    if parent is not None and parent.stem != "__init__":
        return None
    try:
        spec = importlib.util.find_spec(name)
    except (ModuleNotFoundError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


def _top(qualified: str) -> str:
    return qualified.partition(".")[0]
