"""Header changes in one pass: mitmproxy's own setters walk and copy the whole list for each name."""

from collections.abc import Mapping

from mitmproxy import http


def rewrite(headers: http.Headers, changes: Mapping[bytes, bytes | None]) -> None:
    """Set or (None) remove headers by lower-case name, in place where they stand, else at the end; the rest keeps its bytes."""
    left = dict(changes)
    fields: list[tuple[bytes, bytes]] = []
    for name, value in headers.fields:
        lower = name.lower()
        if lower not in changes:
            fields.append((name, value))
        elif (new := left.pop(lower, None)) is not None:
            fields.append((name, new))
    fields += [(name, value) for name, value in left.items() if value is not None]
    headers.fields = tuple(fields)


def append(headers: http.Headers, *added: tuple[bytes, bytes]) -> None:
    """Headers that cannot be there yet, at the end."""
    headers.fields += added
