"""What a virtual key's holder may ask about its own caps, on the gateway port and in the console alike."""

import asyncio
from typing import Any

from store.config_store.json_text import with_fragments
from store.config_store.shapes import quota_json
from store.config_store.snapshot import VirtualKey
from store.config_store.store import ConfigStore
from store.ledger.caps import cap_states


async def quota_of(store: ConfigStore, key: VirtualKey) -> dict[str, Any]:
    """The quota object of a key in Bifrost's shape, ready for `orjson.dumps`. Raises StoreUnavailable."""
    return await asyncio.to_thread(read_quota, store, key)


def read_quota(store: ConfigStore, key: VirtualKey) -> dict[str, Any]:
    """As `quota_of`, on this thread."""
    wanted = [cap.id for cap in (*key.caps, *(cap for config in key.provider_configs for cap in config.caps))]
    with store.ledger.read() as connection:
        states = {state.cap.id: state for state in cap_states(connection, store.clock.now_ms(), wanted)}
    made: dict[str, Any] = with_fragments(quota_json(key, states))
    return made
