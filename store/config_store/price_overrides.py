"""Pricing overrides as the price book wants them: which kinds of calls they are for, and their prices compiled. Pure."""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from store.config_store.records import PricingOverrideRecord
from store.prices.patch import FIELDS, compile_patch
from store.prices.scoped import NO_OVERRIDES, ScopedPatch, ScopedPrices

KEPT_COMPILED = 4096

REQUEST_TYPES: Mapping[str, frozenset[str]] = {
    "chat_completion": frozenset({"chat_completion", "messages", "generate_content"}),
    "responses": frozenset({"responses", "messages", "generate_content"}),
    "text_completion": frozenset({"text_completion"}),
    "embedding": frozenset({"embedding"}),
    "messages": frozenset({"messages"}),
    "generate_content": frozenset({"generate_content"}),
}
"""A request type → the metered operations it is for. Bifrost speaks of Anthropic's messages and Gemini's contents as chats or as
responses, so that each of its two words covers them; `messages` and `generate_content` are ours, for these alone."""
UNMETERED_TYPES = frozenset(
    {"rerank", "ocr", "speech", "transcription", "image_generation", "image_edit", "image_variation", "video_generation"}
)
"""Bifrost's words for calls that are not metered here: an override for them is kept, without effect."""


def operations_of(request_types: Iterable[str]) -> frozenset[str]:
    """Every operation that these request types are for."""
    return frozenset().union(*(REQUEST_TYPES.get(name, frozenset()) for name in request_types))


def scoped_prices(records: Iterable[PricingOverrideRecord]) -> ScopedPrices:
    """All overrides, ready for look-ups. Of two that match equally well the first in `records` holds."""
    made = [one for record in records if (one := compiled(record)) is not None]
    return ScopedPrices(made) if made else NO_OVERRIDES


@lru_cache(KEPT_COMPILED)
def compiled(record: PricingOverrideRecord) -> ScopedPatch | None:
    """The same record gives the same object, so that prices that were made with it stay known. None: it has no effect here."""
    operations = operations_of(record.request_types)
    prices = [(name, usd) for name, usd in record.patch if name in FIELDS]
    if not operations or not prices:
        return None
    return ScopedPatch(
        patch=compile_patch(source_of(record), prices, output_is_nothing=operations == {"embedding"}),
        pattern=record.pattern,
        operations=operations,
        wildcard=record.match_type == "wildcard",
        virtual_key_id=record.virtual_key_id or "",
        provider=record.provider_id or "",
        provider_key_id=record.provider_key_id or "",
    )


def source_of(record: PricingOverrideRecord) -> str:
    """What ledger and logs say of a call that was priced with this override."""
    return f"override {record.name} ({record.id})"
