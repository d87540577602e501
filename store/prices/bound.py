"""The most a call can cost, as a line over its output tokens: what is held before the call leaves, and what fits a balance."""

from collections.abc import Iterable
from dataclasses import dataclass

from store.money import PICOS_PER_NANO, nanos_from_picos
from store.prices import classes
from store.prices.types import ModelPrice, Rates

UNLIMITED_TOKENS = 2**53
"""What `output_tokens_for` answers when output costs nothing."""


@dataclass(frozen=True, slots=True)
class Bound:
    """`input_nanos + fixed_nanos` plus a price per output token. Output tokens are those of all candidates together."""

    input_nanos: int
    output_picos_per_token: int
    """Surcharges included, rounded up."""
    fixed_nanos: int = 0
    """Fees that do not depend on tokens: per request, per search."""

    def bound_nanos(self, output_tokens: int) -> int:
        """The most the call can cost when its output is at most this long."""
        return self.input_nanos + self.fixed_nanos + nanos_from_picos(max(output_tokens, 0) * self.output_picos_per_token)

    def output_tokens_for(self, amount_nanos: int) -> int:
        """The longest output whose bound is at most this amount; -1 when not even an empty answer fits."""
        left_nanos = amount_nanos - self.input_nanos - self.fixed_nanos
        if left_nanos < 0:
            return -1
        if self.output_picos_per_token == 0:
            return UNLIMITED_TOKENS
        return min(left_nanos * PICOS_PER_NANO // self.output_picos_per_token, UNLIMITED_TOKENS)


def make_bound(
    price: ModelPrice,
    *,
    input_tokens: int,
    input_audio_tokens: int = 0,
    input_image_tokens: int = 0,
    input_video_tokens: int = 0,
    writes_cache: bool = False,
    writes_cache_1h: bool = False,
    web_searches: int = 0,
) -> Bound:
    """The bound of a request whose usage stays within these counts.

    `input_tokens` is the most the whole input can have; audio, images and video are the most of it that can be of that kind.
    Every token is priced at the dearest class it can fall into and at the dearest tier an input up to that size can reach
    (a tier's price holds for all tokens). Cache writes count when asked for, and always where the provider writes by itself.
    """
    reachable = [tier.rates for tier in price.tiers if tier.above_input_tokens < input_tokens] or [price.tiers[0].rates]
    always = not _caches_on_request_only(price.model)
    text = max(_input_token(rates, writes_cache or always, writes_cache_1h) for rates in reachable)
    surplus = (
        input_audio_tokens * _above(text, (max(classes.input_audio(r), classes.cache_read_audio(r)) for r in reachable))
        + input_image_tokens * _above(text, (max(classes.input_image(r), classes.cache_read_image(r)) for r in reachable))
        + input_video_tokens * _above(text, (classes.input_video(r) for r in reachable))
    )
    numerator, denominator = price.multiplier
    fees = max(rates.request_picos + max(web_searches, 0) * classes.web_search(rates) for rates in reachable)
    return Bound(
        input_nanos=_ceil((max(input_tokens, 0) * text + surplus) * numerator, denominator * PICOS_PER_NANO),
        output_picos_per_token=_ceil(max(classes.dearest_output(rates) for rates in reachable) * numerator, denominator),
        fixed_nanos=nanos_from_picos(fees),
    )


def _input_token(rates: Rates, writes: bool, writes_1h: bool) -> int:
    """The most one token of text in the input can cost."""
    prices = [rates.input_picos, classes.cache_read(rates)]
    if writes or writes_1h:
        prices.append(classes.cache_write(rates))
    if writes_1h:
        prices.append(classes.cache_write_1h(rates))
    return max(prices)


def _above(text: int, prices: Iterable[int]) -> int:
    """What the dearest of these costs more than text."""
    return max(0, max(prices) - text)


def _caches_on_request_only(model: str) -> bool:
    """Claude and Nova write a cache only where the request says so; others may do it on their own."""
    lowered = model.lower()
    return "claude" in lowered or "nova" in lowered


def _ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)
