"""The operator's own price file: prices, aliases, free models and limits that come before the bundled data.

A TOML file of `[[price]]` tables. `provider` and `model` name what the entry is for; both may end in `*`. Then one of
`input_usd_per_mtok` and `output_usd_per_mtok` (with any of the other prices), `free = true`, `alias_of = "model"`, or limits alone.
"""

import difflib
import hashlib
import tomllib
from collections.abc import Iterator, Sequence
from datetime import UTC
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from store.errors import SettingsError
from store.prices.compile import picos
from store.prices.types import Rates, Tier

LARGEST_FILE_BYTES = 4 * 1024 * 1024
_PER_MTOK = 10**6
_APIECE = 10**12


def _decimal(value: object) -> object:
    """Prices may be written as numbers or as strings; booleans are neither."""
    if isinstance(value, bool) or not isinstance(value, (int, str, Decimal)):
        raise ValueError("should be a number")
    return value


Usd = Annotated[Decimal, BeforeValidator(_decimal), Field(ge=0, le=1_000_000, allow_inf_nan=False)]


class _Prices(BaseModel):
    """Prices in USD: per million tokens, or apiece."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input_usd_per_mtok: Usd | None = None
    output_usd_per_mtok: Usd | None = None
    cache_read_usd_per_mtok: Usd | None = None
    cache_write_usd_per_mtok: Usd | None = None
    cache_write_1h_usd_per_mtok: Usd | None = None
    input_audio_usd_per_mtok: Usd | None = None
    cache_read_audio_usd_per_mtok: Usd | None = None
    output_audio_usd_per_mtok: Usd | None = None
    input_image_usd_per_mtok: Usd | None = None
    cache_read_image_usd_per_mtok: Usd | None = None
    output_image_usd_per_mtok: Usd | None = None
    input_video_usd_per_mtok: Usd | None = None
    output_video_usd_per_mtok: Usd | None = None
    output_reasoning_usd_per_mtok: Usd | None = None
    web_search_usd: Usd | None = None
    request_usd: Usd | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.input_usd_per_mtok is None) != (self.output_usd_per_mtok is None):
            raise ValueError("give both input_usd_per_mtok and output_usd_per_mtok (0 where nothing is charged)")
        if self.input_usd_per_mtok is None and self._names_a_price():
            raise ValueError("give input_usd_per_mtok and output_usd_per_mtok beside the other prices")
        return self

    def _names_a_price(self) -> bool:
        return any(getattr(self, name) is not None for name in _Prices.model_fields)

    def rates(self) -> Rates:
        """The integer table. Only for entries that give a price."""
        figures: dict[str, int] = {}
        for name in _Prices.model_fields:
            usd: Decimal | None = getattr(self, name)
            if usd is not None:
                scale = _PER_MTOK if name.endswith("_per_mtok") else _APIECE
                figures[name.removesuffix("_per_mtok").removesuffix("_usd") + "_picos"] = picos(usd, scale)
        return Rates(**figures)


class OverrideTier(_Prices):
    """Prices for calls whose total input is above a threshold. Classes left out fall back within the tier, not to the base."""

    above_input_tokens: int = Field(gt=0, strict=True)

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if self.input_usd_per_mtok is None:
            raise ValueError("give input_usd_per_mtok and output_usd_per_mtok")
        return self


class Override(_Prices):
    """One `[[price]]` table."""

    provider: str = Field(min_length=1)
    model: str = Field(min_length=1)
    service_tier: str = ""
    """Empty: ordinary and cheaper processing. A word: calls at that tier alone."""
    starts_at: AwareDatetime | None = None
    free: bool = Field(default=False, strict=True)
    alias_of: str | None = Field(default=None, min_length=1)
    """The model, by the price data's names at the same provider (or `provider/model`), whose price and limits hold."""
    context_tokens: int | None = Field(default=None, gt=0, strict=True)
    max_output_tokens: int | None = Field(default=None, gt=0, strict=True)
    tier: tuple[OverrideTier, ...] = ()

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        priced = self.input_usd_per_mtok is not None
        if sum((priced, self.free, self.alias_of is not None)) > 1:
            raise ValueError("give only one of prices, free and alias_of")
        if self.tier and not priced:
            raise ValueError("tiers need input_usd_per_mtok and output_usd_per_mtok beside them")
        if not (priced or self.free or self.alias_of or self.context_tokens or self.max_output_tokens):
            raise ValueError("give prices, free = true, alias_of, max_output_tokens or context_tokens")
        return self

    @property
    def sets_price(self) -> bool:
        """Whether the entry says what a call costs (limits alone do not)."""
        return self.free or self.alias_of is not None or self.input_usd_per_mtok is not None

    def tiers(self) -> tuple[Tier, ...]:
        """The integer price table. Only for entries that are free or give prices."""
        if self.free:
            return (Tier(-1, Rates(input_picos=0, output_picos=0, web_search_picos=0)),)
        further = sorted(self.tier, key=lambda tier: tier.above_input_tokens)
        return (Tier(-1, self.rates()), *(Tier(tier.above_input_tokens, tier.rates()) for tier in further))

    def start_ms(self) -> int:
        """When the entry begins to hold; 0 when it always does."""
        return 0 if self.starts_at is None else round(self.starts_at.astimezone(UTC).timestamp() * 1000)

    def fits(self, provider: str, model: str) -> bool:
        """Whether the entry is for this model; both names in lower case."""
        return _fits(self.provider.lower(), provider) and _fits(self.model.lower(), model)

    def precision(self) -> tuple[bool, bool, int, int]:
        """Orders entries: exact names before patterns, longer patterns before shorter ones."""
        return (
            not self.model.endswith("*"),
            not self.provider.endswith("*"),
            len(self.model),
            len(self.provider),
        )


class Overrides:
    """The entries of one file, most precise first."""

    def __init__(self, entries: Sequence[Override] = (), source: str = "override") -> None:
        self._entries = tuple(sorted(entries, key=Override.precision, reverse=True))
        self.source = source
        """`override` with the beginning of the file's SHA-256: which file a ledger row was priced by."""

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Override]:
        return iter(self._entries)

    def for_model(self, provider: str, model: str) -> tuple[Override, ...]:
        """All entries for this model, most precise first. Names in lower case."""
        return tuple(entry for entry in self._entries if entry.fits(provider, model))


def load_overrides(path: Path) -> Overrides:
    """Read and check a price file. Raises SettingsError with one sentence that names the entry and what to do."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"The price file {path} cannot be read: {error.strerror or error}.") from None
    if len(content) > LARGEST_FILE_BYTES:
        raise SettingsError(f"The price file {path} is larger than {LARGEST_FILE_BYTES // 1024 // 1024} MB; shorten it.")
    return parse_overrides(content, str(path))


def parse_overrides(content: bytes, name: str) -> Overrides:
    """Check the content of a price file; `name` stands for it in errors. Raises SettingsError."""
    try:
        document = tomllib.loads(content.decode("utf-8"), parse_float=Decimal)
    except UnicodeDecodeError:
        raise SettingsError(f"{name} is not UTF-8 text; save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{name} is not valid TOML: {error}.") from None
    for key in document:
        if key != "price":
            raise SettingsError(f"{name}: {key!r} is not a known table; prices stand in [[price]] tables.")
    tables = document.get("price", [])
    if not isinstance(tables, list):
        raise SettingsError(f"{name}: write [[price]] with two brackets, since there may be several.")
    entries = [_entry(table, f"{name}: price[{number}]") for number, table in enumerate(tables, 1)]
    _refuse_repetitions(entries, name)
    return Overrides(entries, f"override {hashlib.sha256(content).hexdigest()[:8]}")


def _entry(table: object, where: str) -> Override:
    try:
        return Override.model_validate(table)
    except ValidationError as error:
        raise SettingsError(_sentence(error, where)) from None


def _sentence(error: ValidationError, where: str) -> str:
    """The first fault as one sentence with its path; an unknown key with the nearest known one."""
    fault = error.errors(include_url=False, include_input=False)[0]
    path = where + "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = OverrideTier.model_fields if "tier" in fault["loc"][:-1] else Override.model_fields
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
        return f"{path} is not a known key{f'; did you mean {near[0]!r}?' if near else '.'}"
    if fault["type"] == "missing":
        return f"{path} is missing."
    message: str = fault["msg"]
    return f"{path}: {message.removeprefix('Value error, ').rstrip('.')}."


def _refuse_repetitions(entries: Sequence[Override], name: str) -> None:
    seen: dict[tuple[Any, ...], int] = {}
    for number, entry in enumerate(entries, 1):
        key = (entry.provider.lower(), entry.model.lower(), entry.service_tier.lower(), entry.starts_at, entry.sets_price)
        if key in seen:
            raise SettingsError(
                f"{name}: price[{number}] is for the same model, tier and start as price[{seen[key]}]; "
                "remove one or give it another starts_at."
            )
        seen[key] = number


def _fits(pattern: str, text: str) -> bool:
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern
