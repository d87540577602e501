"""Finds what a document asks for that its shape knows of but nothing here implements, so that it can be said aloud."""

from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from store.config_store.problems import models_in, options


def unimplemented_in(annotation: Any, value: Any, path: str = "") -> Iterator[str]:
    """Paths in a document that a shape knows but does not implement, where they ask for something."""
    for model in models_in(annotation):
        if not isinstance(value, Mapping):
            continue
        for key, inner in value.items():
            at = f"{path}.{key}" if path else str(key)
            field = next((field for name, field in model.model_fields.items() if key == (field.alias or name)), None)
            if field is not None:
                yield from unimplemented_in(field.annotation, inner, at)
            elif key in getattr(model, "unimplemented", ()) or key in getattr(model, "read_only", ()):
                if not is_empty(inner):
                    yield at
    for option in options(annotation):
        origin, args = get_origin(option), get_args(option)
        if origin in (list, tuple) and args and isinstance(value, list):
            for index, inner in enumerate(value):
                yield from unimplemented_in(args[0], inner, f"{path}[{index}]")
        elif origin is dict and len(args) == 2 and isinstance(value, Mapping):
            for key, inner in value.items():
                yield from unimplemented_in(args[1], inner, f"{path}.{key}")


def is_empty(value: Any) -> bool:
    """True for a value that asks for nothing: null, false, zero, and empty text, lists and objects."""
    return value is None or value is False or value == 0 or (isinstance(value, str | list | dict | tuple) and not value)
