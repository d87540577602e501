"""Numbered schema steps of the configuration and ledger database; a step is a module `mNNNN_name.py` with `up(connection)`."""

import importlib
import pkgutil
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from store.database import Connection

_NAME = re.compile(r"m([0-9]{4})_([a-z0-9_]+)")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: runs inside a write transaction, once per database, in the order of the numbers."""

    number: int
    name: str
    up: Callable[["Connection"], None]


def discover(package: str = __name__) -> tuple[Migration, ...]:
    """All steps of a package, in order. Raises ValueError when two carry the same number."""
    found: dict[int, Migration] = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        match = _NAME.fullmatch(module.name)
        if match is None:
            continue
        number = int(match[1])
        if number in found:
            raise ValueError(f"two migrations carry the number {number}: {found[number].name} and {match[2]}")
        up = importlib.import_module(f"{package}.{module.name}").up
        found[number] = Migration(number, match[2], up)
    return tuple(found[number] for number in sorted(found))


def in_order(migrations: Sequence[Migration]) -> tuple[Migration, ...]:
    """The same steps sorted by number. Raises ValueError for doubles."""
    ordered = tuple(sorted(migrations, key=lambda migration: migration.number))
    if len({migration.number for migration in ordered}) != len(ordered):
        raise ValueError("two migrations carry the same number")
    return ordered
