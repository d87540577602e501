"""What a condition may cost: every one runs on the road of a call, and the caller chooses the sizes of what it looks at."""

import re
from collections.abc import Sequence
from math import prod

Token = tuple[str, str]
"""(kind, word): kind is `text`, `name` or `mark`."""

LOOPS = frozenset(("all", "exists", "exists_one", "filter"))
LOOPS_MAX = 8
DEPTH_MAX = 2
WORK_MAX = 50_000
"""Words of an expression, each times the entries of the lists it is run for."""
SUMS_MAX = 32
"""Additions. Texts can be as long as a request's head, and each addition copies."""
PATTERNS_MAX = 8
REPEATS_MAX = 1000
"""Of a pattern: the product of its counts `{n}`. A pattern is built anew at each look."""
_COUNT = re.compile(r"\{\s*(\d+)\s*(?:,\s*(\d*)\s*)?\}")
ENTRIES_MAX = 200
"""Headers or parameters that one look through all of them may meet."""


def check_cost(tokens: Sequence[Token]) -> None:
    """Refuse what could hold up every call, or grow without end. Raises ValueError."""
    words = [word for _, word in tokens]
    sums = sum(1 for kind, word in tokens if kind == "mark" and word == "+")
    if sums > SUMS_MAX:
        raise ValueError(f"adds {sums} times; {SUMS_MAX} are the most")
    calls = [index for index, (kind, word) in enumerate(tokens) if _is_call(tokens, index) and (word in LOOPS or word == "map")]
    if any(words[index] == "map" for index in calls):
        raise ValueError("uses map, which makes lists without end; a condition asks with exists, all or filter")
    if len(calls) > LOOPS_MAX:
        raise ValueError(f"has {len(calls)} loops (all, exists, filter); {LOOPS_MAX} are the most")
    if any(pair == (("mark", "/"), ("mark", "/")) for pair in zip(tokens, tokens[1:], strict=False)):
        raise ValueError("has a comment; say it in the rule's description")
    closing = _pairs(tokens)
    work = len(tokens)
    spans = [(index + 1, closing.get(index + 1, len(tokens))) for index in calls]
    for index, (start, end) in zip(calls, spans, strict=True):
        around = [outer for outer, (first, last) in zip(calls, spans, strict=True) if first < index < last]
        if len(around) >= DEPTH_MAX:
            raise ValueError(f"has loops {len(around) + 1} deep; {DEPTH_MAX} are the most")
        if around and _entries(tokens, index) is None:
            raise ValueError(f"{words[index]}: inside another loop only a list that stands there may be looked through")
        if around and any(kind == "mark" and word == "+" for kind, word in tokens[start:end]):
            raise ValueError("adds inside a loop inside a loop")
        times = 1
        for loop in (*around, index):
            times *= _entries(tokens, loop) or ENTRIES_MAX
        work += times * (end - start)
    _check_patterns(tokens, spans)
    if work > WORK_MAX:
        raise ValueError("goes through lists in lists for too long; write shorter lists, or several rules")


def _is_call(tokens: Sequence[Token], index: int) -> bool:
    return tokens[index][0] == "name" and [word for _, word in tokens[index + 1 : index + 2]] == ["("]


def _pairs(tokens: Sequence[Token]) -> dict[int, int]:
    """Where each bracket is closed, and where each is opened."""
    found: dict[int, int] = {}
    open_at: list[int] = []
    for index, (kind, word) in enumerate(tokens):
        if kind != "mark":
            continue
        if word in "([{":
            open_at.append(index)
        elif word in ")]}" and open_at:
            start = open_at.pop()
            found[start], found[index] = index, start
    return found


def _entries(tokens: Sequence[Token], index: int) -> int | None:
    """How many entries the list written before `.all(` has at most; None when it is no list that stands there."""
    if index < 2 or tokens[index - 1][1] != "." or tokens[index - 2] != ("mark", "]"):
        return None
    start = _pairs(tokens).get(index - 2)
    if start is None or (start and (tokens[start - 1][0] in ("name", "text") or tokens[start - 1][1] in (")", "]", "}"))):
        return None  # an entry of something
    return 1 + sum(1 for kind, word in tokens[start : index - 2] if word == "," and kind == "mark")


def _check_patterns(tokens: Sequence[Token], loops: Sequence[tuple[int, int]]) -> None:
    found = [index for index, token in enumerate(tokens) if token == ("name", "matches") and _is_call(tokens, index)]
    if len(found) > PATTERNS_MAX:
        raise ValueError(f"has {len(found)} patterns; {PATTERNS_MAX} are the most")
    for index in found:
        end = _pairs(tokens).get(index + 1, len(tokens))
        if any(kind == "name" for kind, _ in tokens[index + 2 : end]):
            raise ValueError("matches needs a pattern that stands there: callers must not choose it")
        pattern = "".join(word for _, word in tokens[index + 2 : end])
        counts = [max(1, int(least), int(most or 0)) for least, most in _COUNT.findall(pattern)]
        if prod(counts) > (1 if any(start < index < stop for start, stop in loops) else REPEATS_MAX):
            raise ValueError("matches: the pattern repeats too often; use smaller counts, and none inside a loop")
