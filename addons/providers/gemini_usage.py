"""Gemini's usageMetadata in the normal form."""

from typing import Any

from addons.providers.counters import subset, totals, whole
from store.usage import Usage


def usage_of(usage: dict[str, Any], web_searches: int) -> Usage | None:
    """The normal form; None when nothing that can be trusted is reported.

    The prompt includes cached content, the results of tools come on top of it. Thoughts come on top of the candidates,
    unless the reported total shows that this server counts them inside. A total above all parts is output.
    """
    main = totals(
        usage,
        ("promptTokenCount",),
        ("candidatesTokenCount", "responseTokenCount"),
        ("toolUsePromptTokenCount",),
        ("thoughtsTokenCount",),
        ("totalTokenCount",),
    )
    if main is None:
        return None
    prompt, candidates, tool_use, thoughts, total = main
    inclusive = thoughts <= candidates and prompt + candidates + tool_use == total
    output_tokens = candidates if inclusive else candidates + thoughts
    output_tokens = max(output_tokens, total - prompt - tool_use)
    cached = subset(usage, "cachedContentTokenCount")
    input_tokens = prompt + tool_use
    if cached > input_tokens:
        input_tokens += cached  # only a server that counts it beside the prompt can report this
    prompt_details = ("promptTokensDetails", "toolUsePromptTokensDetails")
    output_details = ("candidatesTokensDetails", "responseTokensDetails")
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read_tokens=cached,
        reasoning_tokens=thoughts,
        input_audio_tokens=_of_modality(usage, prompt_details, "AUDIO"),
        cache_read_audio_tokens=_of_modality(usage, ("cacheTokensDetails",), "AUDIO"),
        output_audio_tokens=_of_modality(usage, output_details, "AUDIO"),
        input_image_tokens=_of_modality(usage, prompt_details, "IMAGE"),
        output_image_tokens=_of_modality(usage, output_details, "IMAGE"),
        web_searches=web_searches,
    )


def _of_modality(usage: dict[str, Any], keys: tuple[str, ...], modality: str) -> int:
    tokens = 0
    for key in keys:
        details = usage.get(key)
        for entry in details if type(details) is list else ():
            if type(entry) is dict and str(entry.get("modality")).upper() == modality:
                tokens += whole(entry.get("tokenCount")) or 0
    return tokens
