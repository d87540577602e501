"""What people may ask for on models and on whole providers: the same in config.json and in the API."""

from typing import Literal, Self

from pydantic import model_validator

from store.config_store.fields import Bool, Id, Name
from store.config_store.specs import Budgets, BudgetSpec, Limited, RateLimitSpec, Spec, check_budgets

ModelScope = Literal["global", "virtual_key"]
_ANSWERED = frozenset({"budget_id", "rate_limit_id", "scope_name", "config_hash", "created_at", "updated_at"})


class ModelConfigSpec(Limited):
    """Caps on a model (`*`: any run of characters), perhaps at one provider only, for everybody or inside one virtual key."""

    read_only = _ANSWERED

    id: Id | None = None
    model_name: Name
    provider: Name | None = None
    scope: ModelScope = "global"
    scope_id: Id | None = None
    """Id or name of the virtual key, with scope `virtual_key`."""

    @property
    def known_id(self) -> str | None:
        """Its id, as far as it is known before it is made: one for everybody at any provider goes by the model's name."""
        return self.id or (self.model_name if self.scope == "global" and self.provider is None else None)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.model_name.strip():
            raise ValueError("model_name is empty; write a model's name, or * for every model")
        if self.scope == "virtual_key" and not self.scope_id:
            raise ValueError("scope virtual_key needs scope_id, the id of the virtual key")
        if self.scope == "global" and self.scope_id:
            raise ValueError('scope_id is for scope "virtual_key"; leave it out, or set the scope')
        return self


class FileModelConfig(ModelConfigSpec):
    """A row of `governance.model_configs`: its caps may also stand in rows that it names."""

    read_only = _ANSWERED - {"budget_id", "rate_limit_id"}

    budget_id: Id | None = None
    budget_ids: tuple[Id, ...] = ()
    rate_limit_id: Id | None = None


class ModelConfigPatch(Spec):
    """Changes to a model config: absent fields stay. Whom it binds cannot change: what was spent would be somebody else's."""

    read_only = _ANSWERED | {"id"}

    model_name: Name | None = None
    provider: Name | None = None
    scope: ModelScope | None = None
    scope_id: Id | None = None
    budgets: Budgets | None = None
    rate_limit: RateLimitSpec | None = None
    calendar_aligned: Bool | None = None
    reset_budget_usage: Bool = False

    @model_validator(mode="after")
    def _clear(self) -> Self:
        check_budgets(self.budgets or ())
        return self


class ProviderLimitsPatch(Spec):
    """Deployment-wide caps of a provider: absent fields stay, lists are the whole desired set."""

    read_only = frozenset({"provider", "config_hash"})

    budgets: Budgets | None = None
    budget: BudgetSpec | None = None
    """One budget instead of the list, as older clients send it."""
    rate_limit: RateLimitSpec | None = None
    calendar_aligned: Bool | None = None
    reset_budget_usage: Bool = False

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.budget is not None and self.budgets is not None:
            raise ValueError("budget and budgets are both given; keep budgets")
        check_budgets(self.budgets or ())
        return self

    @property
    def desired(self) -> Budgets | None:
        """The budgets there shall be; None: as they are."""
        return (self.budget,) if self.budget is not None else self.budgets
