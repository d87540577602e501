"""Breaks the ledger on purpose: a function's source is changed by a word or two, and its code swapped in place for a while."""

import ast
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any


class OutOfDate(Exception):
    """The text that a mutant changes is not there any more: mend the mutant."""


@dataclass(frozen=True)
class Change:
    """In one function (`store.ledger.batch:Batch.settle`), one text becomes another."""

    where: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """A way in which the ledger could be wrong."""

    name: str
    changes: tuple[Change, ...]
    first: int = 0
    """The seed to begin with."""

    def __str__(self) -> str:
        return self.name


@contextmanager
def broken(mutant: Mutant) -> Iterator[None]:
    """The ledger is broken inside. Raises OutOfDate."""
    with ExitStack() as stack:
        for where in {change.where for change in mutant.changes}:
            stack.enter_context(_changed(where, [change for change in mutant.changes if change.where == where]))
        yield


@contextmanager
def _changed(where: str, changes: list[Change]) -> Iterator[None]:
    function = _found(where)
    source = textwrap.dedent(inspect.getsource(function))
    for change in changes:
        if source.count(change.old) != 1:
            raise OutOfDate(f"{where} has {source.count(change.old)} times {change.old!r}")
        source = source.replace(change.old, change.new)
    original = function.__code__
    function.__code__ = _compiled(function, source).__code__
    try:
        yield
    finally:
        function.__code__ = original


def _found(where: str) -> FunctionType:
    module_name, path = where.split(":")
    found: Any = importlib.import_module(module_name)
    for name in path.split("."):
        found = inspect.getattr_static(found, name)
    if isinstance(found, staticmethod | classmethod):
        found = found.__func__
    if isinstance(found, property):
        found = found.fget
    function = inspect.unwrap(found)
    if not isinstance(function, FunctionType):
        raise OutOfDate(f"{where} is no function")
    return function


def _compiled(function: FunctionType, source: str) -> FunctionType:
    """The function of this source, in the module of the other; decorators are left out."""
    tree = ast.parse(source)
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef):
        raise OutOfDate(f"{function.__qualname__} is no function")
    definition.decorator_list = []
    names: dict[str, Any] = {}
    exec(compile(tree, f"<{function.__qualname__}, broken>", "exec"), function.__globals__, names)  # noqa: S102
    made = names[definition.name]
    if not isinstance(made, FunctionType):
        raise OutOfDate(f"{function.__qualname__} is no function")
    return made
