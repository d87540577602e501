"""The compiler of CEL without the command line that its package brings: that one loads a terminal toolkit in every process."""

import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cel import Program


def compile_program(text: str) -> "Program":
    """A compiled expression. Raises ValueError for what cannot be read; the parser's own panics come as BaseException."""
    program: Program = _extension.compile(text)
    return program


def _load() -> Any:
    """The compiled module inside the package. Importing the package took a sixth of a second of each process's start."""
    package = find_spec("cel")
    found = PathFinder.find_spec("cel.cel", package.submodule_search_locations) if package is not None else None
    if found is None or found.loader is None:
        import cel

        return cel
    module = sys.modules.get(found.name)
    if module is None:
        module = sys.modules[found.name] = module_from_spec(found)
        found.loader.exec_module(module)
    return module


_extension = _load()
