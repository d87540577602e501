"""What recent calls taught about a model: tokens per byte of input, and how long its answers usually are. In memory, bounded."""

from array import array
from bisect import bisect_left, insort
from collections import OrderedDict, deque

RECENT_CALLS = 200
"""How many calls back a figure looks."""
MAX_ENTRIES = 10_000
"""Entries (pairs of provider and model, or these per virtual key) kept before the least recently used one goes."""
MARGIN = 1.25
"""On top of the highest ratio seen: the next text may be denser than any so far."""
MIN_TEXT_BYTES = 256
"""Below this, framing (roles, special tokens) drowns the text, and one `hi` would spoil the ratio for hundreds of calls."""
_MAX_TOKENS = 2**32 - 1


class _RecentMaximum:
    """The largest of the last RECENT_CALLS values, in constant time: values that a later, larger one hides are dropped."""

    __slots__ = ("_falling", "_seen")

    def __init__(self) -> None:
        self._falling: deque[tuple[int, float]] = deque()
        self._seen = 0

    def add(self, value: float) -> None:
        while self._falling and self._falling[-1][1] <= value:
            self._falling.pop()
        self._falling.append((self._seen, value))
        self._seen += 1
        if self._falling[0][0] <= self._seen - RECENT_CALLS - 1:
            self._falling.popleft()

    @property
    def value(self) -> float:
        return self._falling[0][1]


class _RecentCounts:
    """The last RECENT_CALLS counts, by arrival and in order, so that any percentile is one look."""

    __slots__ = ("_arrived", "_next", "_ordered")

    def __init__(self) -> None:
        self._arrived = array("I")
        self._ordered = array("I")
        self._next = 0

    def add(self, count: int) -> None:
        if len(self._arrived) < RECENT_CALLS:
            self._arrived.append(count)
        else:
            oldest = self._arrived[self._next]
            del self._ordered[bisect_left(self._ordered, oldest)]
            self._arrived[self._next] = count
            self._next = (self._next + 1) % RECENT_CALLS
        insort(self._ordered, count)

    def percentile(self, percent: int) -> int:
        """The smallest count that at least `percent` per cent of the counts do not exceed (nearest rank)."""
        rank = -(-len(self._ordered) * percent // 100)
        return self._ordered[max(rank, 1) - 1]


class AnswerSizes:
    """How many tokens an earlier answer brings along when a request names it as its past. In memory, bounded."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._tokens: OrderedDict[str, int] = OrderedDict()

    def remember(self, answer_id: str, tokens: int) -> None:
        """`tokens`: input and output of the call that made the answer."""
        self._tokens[answer_id] = tokens
        self._tokens.move_to_end(answer_id)
        if len(self._tokens) > self._max_entries:
            self._tokens.popitem(last=False)

    def tokens(self, answer_id: str) -> int | None:
        """None for an answer that this process has not seen."""
        return self._tokens.get(answer_id)


class Learned:
    """Figures from the calls this process has seen. Not shared and not kept: a restart begins with the shipped defaults."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._ratios: OrderedDict[tuple[str, str], _RecentMaximum] = OrderedDict()
        self._outputs: OrderedDict[tuple[str, str, str], _RecentCounts] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ratios) + len(self._outputs)

    def observe(
        self, provider: str, model: str, virtual_key_id: str, text_bytes: int, input_tokens: int, output_tokens: int
    ) -> None:
        """Learn from one finished call.

        `text_bytes` are the bytes of decoded text, `input_tokens` the tokens that stem from them (media and framing left out
        where they are known). Pass 0 bytes when the provider read more than the body showed; only the output is learnt then.
        """
        if text_bytes >= MIN_TEXT_BYTES and input_tokens > 0:
            self._ratio_entry((provider, model)).add(input_tokens / text_bytes)
        if output_tokens > 0:
            self._output_entry((virtual_key_id, provider, model)).add(min(output_tokens, _MAX_TOKENS))

    def tokens_per_byte(self, provider: str, model: str, default: float) -> float:
        """The highest ratio of recent calls with a margin of a quarter, never above 1; `default` before any were seen."""
        key = (provider, model)
        ratio = self._ratios.get(key)
        if ratio is None:
            return default
        self._ratios.move_to_end(key)
        return min(1.0, ratio.value * MARGIN)

    def usual_output(self, virtual_key_id: str, provider: str, model: str) -> int | None:
        """The 99th percentile of this key's recent output tokens from this model; None before any call."""
        return self._output_percentile((virtual_key_id, provider, model), 99)

    def typical_output(self, virtual_key_id: str, provider: str, model: str) -> int | None:
        """The median of this key's recent output tokens from this model; None before any call."""
        return self._output_percentile((virtual_key_id, provider, model), 50)

    def _output_percentile(self, key: tuple[str, str, str], percent: int) -> int | None:
        counts = self._outputs.get(key)
        if counts is None:
            return None
        self._outputs.move_to_end(key)
        return counts.percentile(percent)

    def _ratio_entry(self, key: tuple[str, str]) -> _RecentMaximum:
        entry = self._ratios.get(key)
        if entry is None:
            entry = self._ratios[key] = _RecentMaximum()
            self._make_room()
        else:
            self._ratios.move_to_end(key)
        return entry

    def _output_entry(self, key: tuple[str, str, str]) -> _RecentCounts:
        entry = self._outputs.get(key)
        if entry is None:
            entry = self._outputs[key] = _RecentCounts()
            self._make_room()
        else:
            self._outputs.move_to_end(key)
        return entry

    def _make_room(self) -> None:
        """Let the least recently used entry of the larger table go once there are too many in all."""
        if len(self) <= self._max_entries:
            return
        if len(self._outputs) >= len(self._ratios):
            self._outputs.popitem(last=False)
        else:
            self._ratios.popitem(last=False)
