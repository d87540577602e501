"""What a call used, in one normal form for every provider: totals, with every other counter a subset of them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and billable events of one call, or of one model's part of it.

    `input_tokens` includes cache reads, cache writes and every modality; `output_tokens` includes reasoning.
    The other counters are subsets of those two, so a sum over all fields means nothing.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    """All cache writes, whatever their time to live."""
    cache_write_1h_tokens: int = 0
    """Of `cache_write_tokens`, those kept for an hour (or another dearer, longer time)."""
    reasoning_tokens: int = 0
    input_audio_tokens: int = 0
    cache_read_audio_tokens: int = 0
    output_audio_tokens: int = 0
    input_image_tokens: int = 0
    output_image_tokens: int = 0
    input_video_tokens: int = 0
    output_video_tokens: int = 0
    web_searches: int = 0
    """Searches that the provider bills by the piece."""


@dataclass(frozen=True, slots=True)
class Reading:
    """All that an answer told about its price. Produced by a dialect's reader, priced by the price book."""

    usage: Usage | None = None
    """None when the provider has reported nothing (yet)."""
    model: str | None = None
    """The model that answered, as the provider names it."""
    answer_id: str | None = None
    """The provider's id of the answer, where a later request may name it as its past (previous_response_id)."""
    service_tier: str | None = None
    speed: str | None = None
    """Anthropic's `fast`."""
    region: str | None = None
    """A processing region that carries a surcharge, such as Anthropic's `inference_geo`."""
    further: tuple[tuple[str | None, Usage], ...] = ()
    """(model, usage) of parts billed beside the main usage; a model of None is the main one."""
    provider_cost_nanos: int | None = None
    """What the provider itself says the call cost (OpenRouter, Perplexity)."""
    stop_reason: str | None = None
    output_bytes: int = 0
    """UTF-8 bytes of the output seen (text, reasoning, tool arguments): the basis when a stream breaks before its usage."""
    output_events: int = 0
    """Pieces of output (deltas that were not empty) seen in a stream: each holds at least one token, so this never exceeds
    the true count."""
    usage_is_final: bool = False
    """True once the provider has sent what it calls the final counts of this answer."""
    error: str | None = None
    """An error that the provider reported inside a 200 answer."""
    unread: bool = False
    """True when a part of the answer was too long or too damaged to be read, so that usage may be missing."""
