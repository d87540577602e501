"""Says in one sentence each what is wrong with a document: the path in it, the fault, and the nearest known key."""

import difflib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAliasType, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

_PLAIN = {
    "missing": "is required",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault: where in the document, and what to do about it."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


def problems(model: type[BaseModel], error: ValidationError) -> tuple[Problem, ...]:
    """Every fault that pydantic found in a document read as `model`, one per path, in its order."""
    found: dict[str, Problem] = {}
    for detail in error.errors(include_url=False, include_input=False):
        path, holder = _follow(model, detail["loc"], unknown_key=detail["type"] == "extra_forbidden")
        message = _sentence(dict(detail), holder)
        if path in found and message not in found[path].message:  # alternatives of one place
            message = f"{found[path].message}, or {message}"
        found[path] = Problem(path, message)
    return tuple(found.values())


def join_problems(found: Sequence[Problem]) -> str:
    """One line for all of them."""
    return "; ".join(str(problem) for problem in found)


def known_keys(model: type[BaseModel]) -> tuple[str, ...]:
    """The keys a document may use for `model`, as they are written there."""
    return tuple(field.alias or name for name, field in model.model_fields.items())


def nearest(word: str, known: Sequence[str]) -> str:
    """A hint such as `did you mean 'budgets'?`, or the list of what is known."""
    if close := difflib.get_close_matches(word, known, n=1, cutoff=0.6):
        return f"did you mean {close[0]!r}?"
    return f"known here: {', '.join(known)}" if known else "nothing may stand here"


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The pydantic models that an annotation allows directly (not those inside its lists)."""
    for option in options(annotation):
        if isinstance(option, type) and issubclass(option, BaseModel):
            yield option


def options(annotation: Any) -> Iterator[Any]:
    """The alternatives of an annotation, unwrapped."""
    if isinstance(annotation, TypeAliasType):
        yield from options(annotation.__value__)
    elif get_origin(annotation) is Annotated:
        yield from options(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for option in get_args(annotation):
            yield from options(option)
    else:
        yield annotation


def child(annotation: Any, item: str | int) -> Any:
    """The annotation of what stands at `item` inside a value of `annotation`; None when there is no such place."""
    for option in options(annotation):
        origin, args = get_origin(option), get_args(option)
        if isinstance(item, int) and origin in (list, tuple) and args:
            return args[0]
        if isinstance(item, str) and origin in (dict, Mapping) and args:
            return args[1]
        if isinstance(item, str) and isinstance(option, type) and issubclass(option, BaseModel):
            for name, field in option.model_fields.items():
                if item == (field.alias or name):
                    return field.annotation
    return None


def _follow(model: type[BaseModel], loc: tuple[str | int, ...], *, unknown_key: bool) -> tuple[str, Any]:
    """The printable path of a location, and the annotation of the object that the last step stands in.

    Among the steps pydantic names the alternatives of unions, of which the document knows nothing: those are left out.
    """
    path = ""
    holder: Any = model
    at: Any = model
    for index, item in enumerate(loc):
        following = child(at, item)
        if following is None and not (unknown_key and index == len(loc) - 1):
            continue
        holder, at = at, following
        path += f"[{item}]" if isinstance(item, int) else f"{'.' if path else ''}{item}"
    return path, holder


def _sentence(detail: dict[str, Any], holder: Any) -> str:
    kind = detail["type"]
    if kind == "extra_forbidden":
        known = [key for model in models_in(holder) for key in known_keys(model)]
        return f"unknown key; {nearest(str(detail['loc'][-1]), known)}"
    if kind in ("value_error", "assertion_error"):
        return str(detail["ctx"]["error"])
    if kind in _PLAIN:
        return _PLAIN[kind]
    message = str(detail["msg"])
    if "at least 1 item after validation, not 0" in message:
        return "must not be empty"
    return message.replace("Input should be", "must be", 1).replace("String should have", "must have", 1)
