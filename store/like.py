"""Looks for a part of a text, alike on both engines: ASCII letters in any case, every other character literally."""

from store.database import Engine

LONGEST = 4096
"""Characters of the longest text that is searched."""


def contains(engine: Engine, column: str) -> str:
    """A condition with one parameter, a `pattern`."""
    # Columns have the collation "C" on PostgreSQL, where ILIKE knows the case of ASCII alone, as SQLite's LIKE does.
    return f"{column} {'ILIKE' if engine == 'postgres' else 'LIKE'} ? ESCAPE '\\'"


def pattern(text: str) -> str:
    """The parameter that finds texts with this part."""
    # One character more than any column holds finds nothing, as the whole would; SQLite refuses patterns of 50,000 bytes,
    # and ends one at a NUL character, in whose place texts are kept with U+FFFD.
    literal = text[: LONGEST + 1].replace("\0", "\ufffd").replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{literal}%"
