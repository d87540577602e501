"""Call: what is known of one exchange so far. Each step reads what earlier steps wrote and writes its own fields."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from mitmproxy import http

from addons.providers.dialect import Dialect, Reader, RequestFacts
from addons.providers.registry import PathKind, ProviderFamily
from addons.refusal import Refusal
from store.config_store.routing_rules import RoutingRule
from store.config_store.snapshot import Provider, ProviderConfig, ProviderKey, Snapshot, VirtualKey
from store.ledger.types import Granted
from store.prices.cost import PatchOf, no_patch
from store.prices.types import ModelPrice
from store.usage import Reading

if TYPE_CHECKING:
    from store.prices.bound import Bound


class State(StrEnum):
    """How far a call has come."""

    NEW = "new"
    ROUTED = "routed"
    IDENTIFIED = "identified"
    AUTHORIZED = "authorized"
    HELD = "held"
    SENT = "sent"
    METERED = "metered"
    SETTLED = "settled"
    REFUSED = "refused"


class WayIn(StrEnum):
    """How the client reached the gateway."""

    REVERSE = "reverse"
    FORWARD = "forward"


class Wanted(NamedTuple):
    """What the caller asked for, before anything was chosen: a call that is resolved anew begins here."""

    provider: Provider
    family: ProviderFamily
    dialect: Dialect | None
    path: str
    """As `provider_path`."""
    model: str
    facts: RequestFacts | None = None
    """As `dialect` reads the request."""


class Candidate(NamedTuple):
    """A place that may serve a call: which provider, by which config of the key, and what the model is called there."""

    provider: Provider
    family: ProviderFamily
    dialect: Dialect | None
    path: str
    config: ProviderConfig | None
    model: str
    key_id: str = ""
    """The one provider key to use; empty: any that the config allows."""
    foreign: bool = False
    """Not the provider that the caller addressed: the caller's own credential must not go there."""


class Destination(NamedTuple):
    """Where a routing rule sends a call; None: as the caller asked."""

    provider: str | None = None
    model: str | None = None
    key_id: str | None = None


class Decision(NamedTuple):
    """What a routing rule says: the rule, and where the call may go, in this order."""

    rule: RoutingRule
    destinations: tuple[Destination, ...]


@dataclass(slots=True)
class Call:
    """One exchange. Fields stand in the order in which the chain fills them."""

    id: str
    flow: http.HTTPFlow
    at_ms: int
    started: float
    """Monotonic seconds at the request head."""
    state: State = State.NEW

    # route
    way_in: WayIn = WayIn.REVERSE
    kind: PathKind = PathKind.UNKNOWN
    plain: bool = False
    """A plain-HTTP request to a host that is nobody's provider: streamed through, not logged, not governed."""
    local: bool = False
    """Answered by the gateway itself (health, CA, quota, model list)."""
    by_model: bool = False
    """`/v1`: the model in the body picks the provider."""
    pinned: bool = True
    """The caller has named the provider: by its base URL, its host, or in front of the model."""
    family: ProviderFamily | None = None
    provider: Provider | None = None
    dialect: Dialect | None = None
    error_dialect: str = "openai"
    operation: str = ""
    path_model: str | None = None
    websocket: bool = False
    """An upgrade to this path would spend money frame by frame."""
    provider_path: str = ""
    """Path as the provider knows it, without query."""
    query: str = ""
    client_path: str = ""
    """The path the client asked for, for the logs; without query, which may hold a key."""
    host: str = ""
    """The host the client named (forward), for the upstream address when no base URL is configured."""
    port: int = 443

    header_names: frozenset[bytes] = frozenset()
    """Names in the request head as it came, lower case: most of what is looked for is not there, and a look at mitmproxy's
    headers costs more than all of these together."""

    # identify
    virtual_key: VirtualKey | None = None
    key_hash: str = ""
    snapshot: Snapshot | None = None
    caller_credential: bool = False
    """The client sent a credential of its own for the provider."""
    caller_oauth: bool = False
    """… and it is a subscription's token, which is never replaced."""

    # request body
    body: bytes = b""
    """Decoded request body."""
    encoded: bool = False
    """The body came compressed."""
    facts: RequestFacts | None = None
    model: str = ""
    """The model asked for, as the provider knows it."""
    requested_model: str = ""
    """The model as the caller wrote it."""

    # choice of the provider
    wanted: Wanted | None = None
    rule: RoutingRule | None = None
    """The routing rule that decided."""
    foreign: bool = False
    """The gateway chose another provider than the one addressed: the caller's own credential must not go there."""
    key_id: str = ""
    """The one provider key that a routing rule names."""

    # authorize
    provider_config: ProviderConfig | None = None

    # estimate
    unpriced_model: str = ""
    """Of the models that the call names, one without a known price."""
    price: ModelPrice | None = None
    price_provider: str = ""
    """The name under which the price book knows the provider."""
    patch_of: PatchOf = no_patch
    """Prices of the operator's own for this caller, as they were when the call was priced; it is settled with the same."""
    assumed_price: bool = False
    """The price is the operator's, for models the price book does not know."""
    region: str | None = None
    """A processing region that carries a surcharge: asked for, or told by the host."""
    free: bool = False
    """The price is known and zero."""
    input_tokens_bound: int = 0
    input_tokens_estimate: int = 0
    """The likeliest count, without margin: what a broken call is charged for its input."""
    output_tokens_bound: int = 0
    """All candidates together."""
    must_limit: bool = False
    """The request sets no output limit and the model has none that is known: the bound must be written into the request."""
    output_floor: int = 0
    """The least the output limit may be lowered to, all candidates together."""
    output_typical: int = 0
    """What such a call usually produces: the tokens a token limit holds."""
    bound: "Bound | None" = None
    strict_bound: "Bound | None" = None

    # reserve and trim
    cap_ids: tuple[str, ...] = ()
    hold: Granted | None = None
    output_tokens_held: int = 0
    """What the hold covers after trimming, all candidates together."""
    hold_is_strict: bool = False
    """A strict cap was among those held: the input counts one token per byte."""
    trimmed_to: int | None = None
    """The output limit written into the request, per candidate."""

    # credentials
    provider_key: ProviderKey | None = None
    signed: bool = False
    """Signature or digest: the body must leave as it came."""
    signed_by_caller: bool = False
    """… and the signature is the caller's credential (SigV4)."""

    changes: dict[bytes, bytes | None] = field(default_factory=dict)
    """Headers to set or (None) to remove before the request leaves, all in one pass (`address`)."""

    # meter
    asked_usage: bool = False
    sent: bool = False
    response_started: float | None = None
    first_token: float | None = None
    reader: Reader | None = None
    reader_failed: bool = False
    cut_stream: Callable[[list[bytes]], list[bytes]] = list
    """Ends a streamed answer with the given last chunks; what the stream callable must return."""
    web_page: bool = False
    """HTML came in place of an answer: from a portal, a proxy or a failing front end, and not from the model."""
    streaming: bool = False
    cut: bool = False

    # settle
    reading: Reading = field(default_factory=Reading)
    cost_nanos: int = 0
    estimated: bool = False
    priced: bool = True
    price_source: str = ""
    outcome: str = ""
    """One of `outcomes.py`."""
    fault_status: int = 502
    """What the client is told when there is neither a refusal nor an answer."""
    note: str = ""
    """What went wrong, in a sentence, when it was neither a refusal nor said by the provider."""
    settled: bool = False
    recorded: bool = False

    refusal: Refusal | None = None

    @property
    def other_models(self) -> tuple[str, ...]:
        """Models that the provider may answer with instead of `model`: what is forbidden, capped or dear of them counts as well."""
        return self.facts.other_models if self.facts is not None else ()

    def governance(self) -> Snapshot:
        """The governance this call is decided by. Raises RuntimeError before `route` has run."""
        if self.snapshot is None:
            raise RuntimeError("the call was not routed yet")
        return self.snapshot

    def refuse(self, refusal: Refusal) -> None:
        """The first refusal stands; later steps before upstream are skipped."""
        if self.refusal is None:
            self.refusal = refusal
            self.state = State.REFUSED
