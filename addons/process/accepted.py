"""The configuration a gateway runs with: read once, checked, and handed to every child as it was then.

A child that is started again must find what its siblings run with, not what somebody is typing into the file at that moment.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from store.config_store.fields import loads_exact
from store.errors import SettingsError
from store.settings import Settings, load_settings, settings_from

_ATTEMPTS = 5
_WHOLE_SECTIONS = ("config_store", "ledger_store")
_LOGS_PLACE = ("type", "config")


@dataclass(frozen=True, slots=True)
class Accepted:
    """A configuration that was found good. `document` is its text (`{}` without a file); it may hold secrets and is never shown."""

    settings: Settings
    source: str
    document: str
    from_file: bool = True
    fixed: str | None = None
    """The document of the start, whose places and ports stay until a restart; None when `document` is that one."""

    def __repr__(self) -> str:
        return f"Accepted(source={self.source!r})"

    def to_line(self) -> bytes:
        """One line of JSON for a child's stdin."""
        return json.dumps([self.source, self.document, self.from_file, self.fixed]).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes, environ: Mapping[str, str]) -> "Accepted":
        """What `to_line` wrote, with secrets looked up in `environ`. Raises SettingsError for what this environment lacks."""
        source, document, from_file, fixed = json.loads(line)
        settings = settings_from(loads_exact(document), environ, source=source)
        if fixed is not None:
            settings, _ = with_fixed(settings, settings_from(loads_exact(fixed), environ, source=source))
        return cls(settings, source, document, from_file, fixed)


def read_accepted(path: Path | None, environ: Mapping[str, str]) -> Accepted:
    """The configuration of a file (None: the defaults), with the very text it was read from.

    Raises SettingsError, one line: file, line and column for broken JSON; the path in the document for wrong values.
    """
    if path is None:
        return Accepted(load_settings(None, environ), "config.json", "{}", from_file=False)
    for _ in range(_ATTEMPTS):
        before = _text(path)
        settings = load_settings(path, environ)
        if before is not None and _text(path) == before:
            return Accepted(settings, str(path), before)
    raise SettingsError(f"{path}: keeps changing while it is read; try again once it is written")


def _text(path: Path) -> str | None:
    """The file as `load_settings` reads it; None when it cannot be read, which that function explains better."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None


def with_fixed(settings: Settings, first: Settings) -> tuple[Settings, list[str]]:
    """(the settings with everything that only a restart can change as it was `first`, the names of what differed)."""
    changed: dict[str, object] = {}
    named: list[str] = []
    for name in _WHOLE_SECTIONS:
        if getattr(settings, name, None) != getattr(first, name, None):
            changed[name] = getattr(first, name)
            named.append(name)
    place = {name: getattr(first.logs_store, name) for name in _LOGS_PLACE}
    if any(getattr(settings.logs_store, name) != value for name, value in place.items()):
        changed["logs_store"] = settings.logs_store.model_copy(update=place)
        named.append("logs_store")
    if _ports(settings) != _ports(first):
        changed["gateway"] = settings.gateway.model_copy(update={"listeners": first.gateway.listeners})
        named.append("gateway.listeners")
    return (settings.model_copy(update=changed) if changed else settings), named


def _ports(settings: Settings) -> set[int]:
    return {listener.port for listener in settings.gateway.listeners}


def accept_anew(path: Path | None, first: Accepted, environ: Mapping[str, str]) -> tuple[Accepted, list[str]]:
    """(the configuration as the file is now, the names of what is left as it was at the start). Raises SettingsError."""
    if path is None:
        return first, []
    found = read_accepted(path, environ)
    settings, named = with_fixed(found.settings, first.settings)
    return Accepted(settings, found.source, found.document, fixed=first.document if named else None), named
