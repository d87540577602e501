"""What applying config.json to a store with data changes, line by line, before it is done."""

from collections.abc import Iterator
from typing import Any

from addons.process.text import exact_json, few, printable
from store.config_store.bootstrap import BootstrapReport
from store.config_store.documents import Json
from store.config_store.import_plan import differences
from store.config_store.whole import KINDS, Documents

MOST_LINES = 200
"""A plan is for reading: of more changes the rest is counted."""
_LONGEST = 60


def plan_lines(report: BootstrapReport) -> Iterator[str]:
    """The plan of a start that applied the file, or would apply it; nothing for one that did not."""
    if report.documents is None:
        return
    before, after = report.documents
    lines = [line for kind in KINDS for line in _of_kind(kind, before, after)]
    counts = {word: sum(line.startswith(f"  {mark} ") for line in lines) for mark, word in _MARKS.items()}
    kept = sum(len(found) for found in before.values()) - counts["changed"] - counts["deleted"]
    told = ", ".join([*(f"{count} {word}" for word, count in counts.items() if count), f"{kept} unchanged"])
    yield f"config.json {'would be' if report.dry_run else 'is'} applied to the store: {told}"
    yield from lines[:MOST_LINES]
    if len(lines) > MOST_LINES:
        yield f"  and {len(lines) - MOST_LINES} more lines"
    for section, names in report.left.items():
        yield (
            f"warning: {section} is empty in config.json, and the store has {few(names)}: left there; "
            "delete them with serve --reseed, or leave the section out"
        )


_MARKS = {"+": "added", "~": "changed", "-": "deleted"}


def _of_kind(kind: str, before: Documents, after: Documents) -> Iterator[str]:
    was, now = before.get(kind, {}), after.get(kind, {})
    word = kind.replace("_", " ")
    for thing, document in now.items():
        old = was.get(thing)
        if old is None:
            yield f"  + {word} {_name(document)}"
        elif old != document:
            yield f"  ~ {word} {_name(document)}"
            for one in differences(old, document):
                yield f"      {printable(one.path)}: {_shown(one.before)} -> {_shown(one.after)}"
    for thing, document in was.items():
        if thing not in now:
            yield f"  - {word} {_name(document)}"


def _name(document: Json) -> str:
    return printable(str(document.get("name") or document.get("model_name") or document.get("id")))


def _shown(value: Any) -> str:
    if value is None:
        return "(none)"
    text = " ".join(exact_json(value).split()) if not isinstance(value, str) else printable(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
