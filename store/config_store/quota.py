"""What a virtual key's holder may ask about its own caps, on the gateway port and in the console alike."""

import asyncio
from collections.abc import Callable
from typing import Any

from store.config_store.json_text import with_fragments
from store.config_store.shapes import Json, quota_json
from store.config_store.snapshot import VirtualKey
from store.config_store.store import ConfigStore
from store.ledger.caps import cap_states
from store.ledger.types import CapState


async def quota_of(store: ConfigStore, key: VirtualKey) -> dict[str, Any]:
    """The quota object of a key in Bifrost's shape, ready for `orjson.dumps`. Raises StoreUnavailable."""
    return await asyncio.to_thread(read_quota, store, key)


def read_quota(store: ConfigStore, key: VirtualKey, usage: Callable[[CapState], list[Json]] | None = None) -> dict[str, Any]:
    """As `quota_of`, on this thread. `usage` gives what each model used of a budget, where logs are at hand."""
    groups = [key.caps, *(config.caps for config in key.provider_configs), *(limit.caps for limit in key.model_caps.limits)]
    wanted = [cap.id for caps in groups for cap in caps]
    with store.ledger.read() as connection:
        states = {state.cap.id: state for state in cap_states(connection, store.clock.now_ms(), wanted)}
    made: dict[str, Any] = with_fragments(quota_json(key, states, usage))
    return made
