"""Which model of the export a call of ours belongs to: snapshots (`gpt-4o-2024-08-06`) and aliases (`gpt-4o`) of one name."""

import re
from collections import defaultdict
from collections.abc import Iterable

_SNAPSHOT = re.compile(r"[-@](?:\d{4}-\d{2}-\d{2}|\d{8}|latest)$")


def family(name: str) -> str:
    """The name without the date of its snapshot, in lower case."""
    return _SNAPSHOT.sub("", name.strip().lower())


def is_dated(name: str) -> bool:
    """Whether the name is that of one snapshot."""
    found = _SNAPSHOT.search(name.strip().lower())
    return found is not None and not found[0].endswith("latest")


class Names:
    """The models of one export, and where each call belongs among them."""

    def __init__(self, usage: Iterable[str], costs: Iterable[str] = ()) -> None:
        """`usage` and `costs`: the names as the two kinds of export spell them; usage has the say."""
        self._theirs: dict[str, str] = {}
        self._by_family: defaultdict[str, list[str]] = defaultdict(list)
        self._ours: dict[tuple[str, str], str] = {}
        for name in sorted(set(usage)):
            self._add(name, name)
        for name in sorted(set(costs)):
            if name.lower() not in self._theirs:
                self._add(name, self._relative(name) or name)

    def theirs(self, name: str) -> str:
        """The one spelling under which a model of the export is listed."""
        return self._theirs.get(name.lower(), name)

    def ours(self, answered: str, asked: str) -> str:
        """The export's name for a call: by the model that answered, by the one asked for, then by family; else our own."""
        key = (answered, asked)
        found = self._ours.get(key)
        if found is None:
            found = self._ours[key] = self._match(answered, asked)
        return found

    def _match(self, answered: str, asked: str) -> str:
        spoken = [name for name in dict.fromkeys((answered, asked)) if name]
        for name in spoken:
            if name.lower() in self._theirs:
                return self._theirs[name.lower()]
        for name in spoken:
            relative = self._relative(name)
            if relative is not None:
                return relative
        return spoken[0] if spoken else "(unknown model)"

    def _relative(self, name: str) -> str | None:
        """The one model of the family; two different snapshots are no relatives."""
        relatives = self._by_family.get(family(name), [])
        fitting = [other for other in relatives if not (is_dated(name) and is_dated(other))]
        return fitting[0] if len(fitting) == 1 else None

    def _add(self, name: str, listed: str) -> None:
        self._theirs[name.lower()] = listed
        if listed == name:
            self._by_family[family(name)].append(name)
