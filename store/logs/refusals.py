"""Merges identical refusals within a second into one row: a runaway loop must not fill the logs with its own echo."""

from collections.abc import Iterable
from dataclasses import replace

from store.logs.types import CallRow

MERGE_MS = 1_000

type _Kind = tuple[str | bool, ...]


class RefusalMerger:
    """Remembers, across batches, the row that refusals of one kind go into. For one thread.

    A kind is key, provider, model, operation, streamed or not, type and cap.
    """

    def __init__(self) -> None:
        self._open: dict[_Kind, tuple[str, int]] = {}

    def merge(self, rows: Iterable[CallRow]) -> tuple[list[CallRow], dict[str, int]]:
        """Rows to write, and counts to add to rows of earlier batches: id → how many more."""
        kept: dict[str, CallRow] = {}
        further: dict[str, int] = {}
        newest_ms = 0
        for row in rows:
            newest_ms = max(newest_ms, row.at_ms)
            if row.status != "refused" or row.caps_charged:  # what was held has rows in the ledger, by its own id
                kept[row.id] = row
                continue
            kind = (
                row.virtual_key_id, row.provider, row.model, row.operation, row.stream, row.refusal_type, row.refusal_cap,
            )  # fmt: skip
            first = self._open.get(kind)
            if first is None or not 0 <= row.at_ms - first[1] < MERGE_MS:
                self._open[kind] = (row.id, row.at_ms)
                kept[row.id] = row
            elif first[0] in kept:
                merged = kept[first[0]]
                kept[first[0]] = replace(merged, count=merged.count + row.count)
            else:
                further[first[0]] = further.get(first[0], 0) + row.count
        self._forget(newest_ms)
        return list(kept.values()), further

    def _forget(self, newest_ms: int) -> None:
        self._open = {kind: first for kind, first in self._open.items() if newest_ms - first[1] < MERGE_MS}
