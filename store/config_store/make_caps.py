"""Caps from what people wrote: nano-dollars from USD, stable ids, default names, windows checked; what is not said is kept."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from store.config_store.specs import BudgetSpec, RateLimitSpec
from store.errors import UserError
from store.ledger.types import Cap, Enforcement, Scope, Unit
from store.windows import MS_PER_DAY, check_window, parse_duration


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom caps bind. `calendar_aligned` holds for windows of a day and more that do not say otherwise themselves."""

    scope: Scope
    id: str
    name: str
    calendar_aligned: bool = False


def stable_cap_id(owner: Owner, unit: Unit, window: str | None) -> str:
    """The id of a cap that was given none: the same for the same scope, unit and window."""
    text = "\x1f".join((owner.scope.value, owner.id, unit.value, window or ""))
    return "cap-" + hashlib.sha256(text.encode()).hexdigest()[:20]


def money_caps(owner: Owner, specs: Sequence[BudgetSpec], existing: Sequence[Cap], now_ms: int, path: str) -> list[Cap]:
    """The full desired set of an owner's budgets. Raises UserError, naming the place."""
    named = {spec.id for spec in specs if spec.id is not None}
    if len(named) < sum(spec.id is not None for spec in specs):
        raise UserError(f"{path}: two budgets have the same id; give each its own, or none")
    # One that another budget of the document names is not to be had by its window or name.
    left = [cap for cap in existing if cap.unit is Unit.USD]
    made: list[Cap] = []
    for index, spec in enumerate(specs):
        offered = [cap for cap in left if cap.id not in named] if spec.id is None else left
        before = _match(offered, spec.id, Unit.USD, spec.reset_duration, spec.name)
        if before is not None:
            left.remove(before)
        taken = named | {cap.id for cap in (*existing, *made)}
        made.append(money_cap(owner, spec, before, now_ms, f"{path}[{index}]", taken))
    return made


def money_cap(owner: Owner, spec: BudgetSpec, before: Cap | None, now_ms: int, path: str, taken: Collection[str] = ()) -> Cap:
    """One budget; fields that the document does not name are kept from `before`. A made id is none of those `taken`."""
    calendar = _calendar(owner, spec.calendar_aligned, spec.reset_duration, before)
    made = Cap(
        id=before.id if before else spec.id or _free_id(owner, Unit.USD, spec.reset_duration, taken),
        name=spec.name or (before.name if before else None) or default_name(owner, Unit.USD, spec.reset_duration),
        scope=owner.scope,
        scope_id=owner.id,
        scope_name=owner.name,
        unit=Unit.USD,
        limit=spec.limit_nanos,
        window=spec.reset_duration,
        calendar_aligned=calendar,
        timezone=_kept(spec, "timezone", spec.timezone, before.timezone if before else None) or "UTC",
        quarter_start_month=_kept(
            spec, "reset_config", spec.quarter_start_month, before.quarter_start_month if before else None
        ) or 1,
        enforcement=Enforcement(
            _kept(spec, "enforcement", spec.enforcement, before.enforcement.value if before else None) or "hard"
        ),
        strict=bool(_kept(spec, "strict", spec.strict, before.strict if before else None)),
        carry_over=bool(_kept(spec, "carry_over", spec.carry_over, before.carry_over if before else None)),
        created_ms=before.created_ms if before else now_ms,
    )  # fmt: skip
    return checked(made, path)


def rate_caps(owner: Owner, spec: RateLimitSpec | None, existing: Sequence[Cap], now_ms: int, path: str) -> list[Cap]:
    """The full desired set of an owner's limits in tokens, requests and parallel calls."""
    if spec is None:
        return []
    made: list[Cap] = []
    wanted = [*spec.windows(), (Unit.CONCURRENT, spec.concurrent_max_limit, None)]
    for unit, limit, window in wanted:
        if limit is None:
            continue
        before = next((cap for cap in existing if cap.unit is unit), None)
        cap = Cap(
            id=before.id if before else _rate_id(owner, spec, unit, window),
            name=before.name if before and before.window == window else default_name(owner, unit, window),
            scope=owner.scope,
            scope_id=owner.id,
            scope_name=owner.name,
            unit=unit,
            limit=limit,
            window=window,
            calendar_aligned=window is not None and _calendar(owner, spec.calendar_aligned, window, before),
            timezone=_kept(spec, "timezone", spec.timezone, before.timezone if before else None) or "UTC",
            enforcement=_rate_enforcement(unit, spec, before),
            created_ms=before.created_ms if before else now_ms,
        )
        made.append(checked(cap, path))
    return made


def _rate_enforcement(unit: Unit, spec: RateLimitSpec, before: Cap | None) -> Enforcement:
    """As written; but nothing is ever used up of a limit on parallel calls, so a soft one would bind nobody and is hard."""
    said = _kept(spec, "enforcement", spec.enforcement, before.enforcement.value if before else None) or "hard"
    return Enforcement.HARD if unit is Unit.CONCURRENT and said == "soft" else Enforcement(said)


def renamed(owner: Owner, caps: Sequence[Cap]) -> list[Cap]:
    """The same caps under the owner's present name and calendar."""
    return [replace(cap, scope_name=owner.name) for cap in caps]


def aligned(owner: Owner, caps: Sequence[Cap]) -> list[Cap]:
    """The same caps with windows cut as the owner now says, where the window allows it."""
    return [replace(cap, calendar_aligned=owner.calendar_aligned and can_align(cap.window)) if cap.window else cap for cap in caps]


def checked(cap: Cap, path: str) -> Cap:
    """The cap, if its window makes sense. Raises UserError with the path of what is wrong."""
    try:
        check_window(
            cap.window,
            calendar_aligned=cap.calendar_aligned,
            timezone=cap.timezone,
            quarter_start_month=cap.quarter_start_month,
        )
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    return cap


def default_name(owner: Owner, unit: Unit, window: str | None) -> str:
    """`workshop-vk-1 per 1h`, `workshop-vk-1 prepaid`, `workshop-vk-1 tokens per 1h`, `workshop-vk-1 parallel calls`."""
    if unit is Unit.CONCURRENT:
        return f"{owner.name} parallel calls"
    if unit is Unit.USD:
        return f"{owner.name} per {window}" if window else f"{owner.name} prepaid"
    return f"{owner.name} {unit.value} per {window}"


def _free_id(owner: Owner, unit: Unit, window: str | None, taken: Collection[str]) -> str:
    """The stable id, or the next one: a cap whose window was changed keeps the id that it got for its first one."""
    made, number = stable_cap_id(owner, unit, window), 1
    while made in taken:
        number += 1
        made = stable_cap_id(owner, unit, f"{window or ''} {number}")
    return made


def _match(caps: Sequence[Cap], cap_id: str | None, unit: Unit, window: str | None, name: str | None) -> Cap | None:
    """The cap that a document means: by id, then by unit and window, then by name."""
    if cap_id is not None:
        return next((cap for cap in caps if cap.id == cap_id), None)
    same_window = next((cap for cap in caps if cap.unit is unit and cap.window == window), None)
    return same_window or next((cap for cap in caps if name is not None and cap.name == name), None)


def _rate_id(owner: Owner, spec: RateLimitSpec, unit: Unit, window: str | None) -> str:
    return f"{spec.id}-{unit.value}" if spec.id else stable_cap_id(owner, unit, window)


def _calendar(owner: Owner, said: bool | None, window: str | None, before: Cap | None) -> bool:
    if said is not None:
        return said
    if before is not None and before.window == window:
        return before.calendar_aligned
    return owner.calendar_aligned and can_align(window)


def can_align(window: str | None) -> bool:
    """True for windows that match a period of the calendar; shorter ones keep rolling."""
    if window is None:
        return False
    duration = parse_duration(window)
    return duration.ms >= MS_PER_DAY and duration.calendar_period is not None


def _kept[Value](spec: BudgetSpec | RateLimitSpec, name: str, said: Value, before: Value | None) -> Value | None:
    """What the document says; when it does not name the field, what stood before; the default when nothing did."""
    return said if spec.given(name) or before is None else before
