"""Usage objects of OpenAI's shapes (chat, completions, responses, embeddings) in the normal form."""

from typing import Any

from addons.providers.counters import subset, totals
from store.usage import Usage


def usage_of(usage: dict[str, Any], web_searches: int = 0) -> Usage | None:
    """The normal form of a `usage` object; None when it reports nothing that can be trusted.

    Cached and written tokens are inside the input, reasoning inside the output. Where the reported total is higher
    than both together (xAI, Gemini's compatible endpoint) the difference is reasoning that was left out of the output.
    """
    main = totals(usage, ("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"), ("total_tokens",))
    if main is None:
        return None
    input_tokens, output_tokens, total = main
    output_tokens = max(output_tokens, total - input_tokens)
    details_in = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    details_out = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    cache_read = subset(details_in, "cached_tokens") or subset(usage, "prompt_cache_hit_tokens", "cached_tokens")
    cache_write = subset(details_in, "cache_write_tokens", "cache_creation_tokens")
    if cache_read + cache_write > input_tokens:
        # Only a server that counts them beside the input can report this.
        input_tokens += cache_read + cache_write
    long_writes = subset(_below(details_in, "cache_write_tokens_details"), "ttl_12h_tokens")
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read_tokens=cache_read,
        cache_write_tokens=max(cache_write, long_writes),
        cache_write_1h_tokens=long_writes,
        reasoning_tokens=subset(details_out, "reasoning_tokens") or subset(usage, "reasoning_tokens"),
        input_audio_tokens=subset(details_in, "audio_tokens"),
        cache_read_audio_tokens=subset(_below(details_in, "cached_tokens_details"), "audio_tokens"),
        output_audio_tokens=subset(details_out, "audio_tokens"),
        input_image_tokens=subset(details_in, "image_tokens"),
        output_image_tokens=subset(details_out, "image_tokens"),
        web_searches=max(web_searches, _searches(usage)),
    )


def _searches(usage: dict[str, Any]) -> int:
    """Searches that OpenRouter, Perplexity or xAI report inside usage."""
    return subset(usage.get("server_tool_use"), "web_search_requests") or subset(usage, "num_search_queries", "num_sources_used")


def _below(holder: object, key: str) -> object:
    return holder.get(key) if type(holder) is dict else None
