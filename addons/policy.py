"""The settings that steps decide by, as one frozen value: no step reads the configuration itself."""

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class AssumedPrice:
    """What a call to a model of unknown price is charged when the operator has named a price for it (pico-dollars per token)."""

    input_picos: int
    output_picos: int


@dataclass(frozen=True, slots=True)
class Policy:
    """How the gateway decides where the contract leaves a choice (contract: `gateway` and `client` sections)."""

    enforce_auth: bool = True
    """A metered call without a virtual key is refused."""
    default_virtual_key: str | None = None
    """Id or name of the key of callers that show none."""
    allow_direct_keys: bool = False
    """In reverse mode a caller's own provider key is used instead of the configured one."""
    allowed_origins: tuple[str, ...] = ()
    """Web origins whose preflights are answered."""
    unpriced: str | AssumedPrice = "block"
    """`block` (under a hard money cap), `allow`, or a price."""
    unmetered: str = "block"
    """Unknown POSTs to an API: `block` under a hard money cap, or `allow`."""
    trim_output: bool = True
    min_output_tokens: int = 256
    routing_chain_max_depth: int = 10
    """How many routing rules one call may pass through, one after another."""
    codex_usage_limit: bool = True
    """Codex gets a used-up budget as its own `usage_limit_reached`."""
    own_names: frozenset[str] = frozenset({"localhost", "127.0.0.1", "::1"})
    """Host names under which the gateway itself is reached."""
    own_port: int = 8080
    listener_keys: MappingProxyType[int, str] = MappingProxyType({})
    """Virtual key (id or name) of callers on a listener's port."""
    max_body_bytes: int = 32 * 1024 * 1024
    body_log_bytes: int = 0
    """Bytes of request and response text kept in the logs and the inspector; 0: none."""
