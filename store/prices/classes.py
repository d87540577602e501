"""What a token of each class costs when the data has no price of its own for the class: always the dearer sensible one.

cache read -> input; cache write -> input; one-hour write -> cache write; audio, image, video -> input (or output);
cached audio -> audio where audio has a price, else cache read; cached image or video -> cache read; reasoning -> output;
a web search -> one cent, the highest fee common among providers (nothing where the model is free).
"""

from store.prices.types import Rates, Tier

DEFAULT_WEB_SEARCH_PICOS = 10_000_000_000
"""One cent per search."""


def cache_read(rates: Rates) -> int:
    return rates.input_picos if rates.cache_read_picos is None else rates.cache_read_picos


def cache_write(rates: Rates) -> int:
    return rates.input_picos if rates.cache_write_picos is None else rates.cache_write_picos


def cache_write_1h(rates: Rates) -> int:
    return cache_write(rates) if rates.cache_write_1h_picos is None else rates.cache_write_1h_picos


def input_audio(rates: Rates) -> int:
    return rates.input_picos if rates.input_audio_picos is None else rates.input_audio_picos


def cache_read_audio(rates: Rates) -> int:
    if rates.cache_read_audio_picos is not None:
        return rates.cache_read_audio_picos
    return cache_read(rates) if rates.input_audio_picos is None else rates.input_audio_picos


def input_image(rates: Rates) -> int:
    return rates.input_picos if rates.input_image_picos is None else rates.input_image_picos


def cache_read_image(rates: Rates) -> int:
    return cache_read(rates) if rates.cache_read_image_picos is None else rates.cache_read_image_picos


def input_video(rates: Rates) -> int:
    return rates.input_picos if rates.input_video_picos is None else rates.input_video_picos


def output_audio(rates: Rates) -> int:
    return rates.output_picos if rates.output_audio_picos is None else rates.output_audio_picos


def output_image(rates: Rates) -> int:
    return rates.output_picos if rates.output_image_picos is None else rates.output_image_picos


def output_video(rates: Rates) -> int:
    return rates.output_picos if rates.output_video_picos is None else rates.output_video_picos


def reasoning(rates: Rates) -> int:
    return rates.output_picos if rates.output_reasoning_picos is None else rates.output_reasoning_picos


def web_search(rates: Rates) -> int:
    if rates.web_search_picos is not None:
        return rates.web_search_picos
    return DEFAULT_WEB_SEARCH_PICOS if rates.input_picos or rates.output_picos else 0


def dearest_output(rates: Rates) -> int:
    """The most one token of output can cost, whatever it holds."""
    return max(rates.output_picos, reasoning(rates), output_audio(rates), output_image(rates), output_video(rates))


def dearest_rates(one: Rates, other: Rates) -> Rates:
    """Per class the higher of two prices."""
    return Rates(
        input_picos=max(one.input_picos, other.input_picos),
        output_picos=max(one.output_picos, other.output_picos),
        cache_read_picos=max(cache_read(one), cache_read(other)),
        cache_write_picos=max(cache_write(one), cache_write(other)),
        cache_write_1h_picos=max(cache_write_1h(one), cache_write_1h(other)),
        input_audio_picos=max(input_audio(one), input_audio(other)),
        cache_read_audio_picos=max(cache_read_audio(one), cache_read_audio(other)),
        output_audio_picos=max(output_audio(one), output_audio(other)),
        input_image_picos=max(input_image(one), input_image(other)),
        output_image_picos=max(output_image(one), output_image(other)),
        cache_read_image_picos=max(cache_read_image(one), cache_read_image(other)),
        input_video_picos=max(input_video(one), input_video(other)),
        output_video_picos=max(output_video(one), output_video(other)),
        output_reasoning_picos=max(reasoning(one), reasoning(other)),
        web_search_picos=max(web_search(one), web_search(other)),
        request_picos=max(one.request_picos, other.request_picos),
    )


def rates_at(tiers: tuple[Tier, ...], input_tokens: int) -> Rates:
    """The rates that hold for a call with this much input in all: those of the highest threshold it is above."""
    for tier in reversed(tiers):
        if input_tokens > tier.above_input_tokens:
            return tier.rates
    return tiers[0].rates


def dearest_tiers(one: tuple[Tier, ...], other: tuple[Tier, ...]) -> tuple[Tier, ...]:
    """Per input size and class the higher of two price tables."""
    if one == other:
        return one
    thresholds = sorted({tier.above_input_tokens for tier in (*one, *other)})
    return tuple(
        Tier(threshold, dearest_rates(rates_at(one, threshold + 1), rates_at(other, threshold + 1))) for threshold in thresholds
    )
