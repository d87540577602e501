"""Which override holds, against a plain search through all of them; and what a look-up costs."""

import time
from collections.abc import Callable
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from store.prices.patch import Patch
from store.prices.scoped import NO_OVERRIDES, ScopedPatch, ScopedPrices

CHAT, RESPONSES = "chat_completion", "responses"
_numbers = count()


def scoped(
    pattern: str, *, key: str = "", provider: str = "", provider_key: str = "", operations: tuple[str, ...] = (CHAT,)
) -> ScopedPatch:
    wildcard = pattern.endswith("*")
    return ScopedPatch(
        Patch(f"override {next(_numbers)}", {}), pattern, frozenset(operations), wildcard, key, provider, provider_key
    )  # fmt: skip


def found(
    overrides: list[ScopedPatch], key: str, provider: str, provider_key: str, model: str, operation: str = CHAT
) -> str | None:
    patch = ScopedPrices(overrides).find(key, provider, provider_key, model, operation)
    return patch.source if patch else None


def plain_search(
    overrides: list[ScopedPatch], key: str, provider: str, provider_key: str, model: str, operation: str
) -> str | None:
    """The rule as it is written down: narrowest scope, exact before pattern, longer before shorter, older before younger."""

    def fits(one: ScopedPatch) -> bool:
        name = model.startswith(one.pattern[:-1]) if one.wildcard else model == one.pattern
        place = one.provider_key_id in ("", provider_key) and (bool(one.provider_key_id) or one.provider in ("", provider))
        return name and place and one.virtual_key_id in ("", key) and operation in one.operations

    def rank(place: tuple[int, ScopedPatch]) -> tuple[bool, bool, bool, bool, int, int]:
        index, one = place
        return (
            not one.virtual_key_id, not one.provider_key_id, not one.provider and not one.provider_key_id,
            one.wildcard, -len(one.pattern), index,
        )  # fmt: skip

    fitting = [(index, one) for index, one in enumerate(overrides) if fits(one)]
    return min(fitting, key=rank)[1].patch.source if fitting else None


_names = st.sampled_from(["ab", "abc", "a*", "ab*", "*"])
_overrides = st.lists(
    st.builds(
        lambda pattern, key, provider, provider_key, operations: scoped(
            pattern, key=key, provider=provider, provider_key=provider_key, operations=operations
        ),
        _names, st.sampled_from(["", "vk-1"]), st.sampled_from(["", "openai"]),
        st.sampled_from(["", "", "pk-1"]), st.sampled_from([(CHAT,), (RESPONSES,), (CHAT, RESPONSES)]),
    ),
    max_size=12,
)  # fmt: skip


@given(
    _overrides, st.sampled_from(["", "vk-1", "vk-2"]), st.sampled_from(["openai", "groq"]), st.sampled_from(["", "pk-1"]),
    st.sampled_from(["a", "ab", "abc", "abcd", "b", "c"]), st.sampled_from([CHAT, RESPONSES]),
)  # fmt: skip
@settings(max_examples=500, deadline=None)
def test_the_narrowest_scope_wins(
    overrides: list[ScopedPatch], key: str, provider: str, provider_key: str, model: str, operation: str
) -> None:
    assert found(overrides, key, provider, provider_key, model, operation) == plain_search(
        overrides, key, provider, provider_key, model, operation
    )


def test_the_six_scopes_in_their_order() -> None:
    order = [
        scoped("m", key="vk", provider="openai", provider_key="pk"), scoped("m", key="vk", provider="openai"),
        scoped("m", key="vk"), scoped("m", provider_key="pk"), scoped("m", provider="openai"), scoped("m"),
    ]  # fmt: skip
    for place, one in enumerate(order):
        assert found(list(reversed(order[place:])), "vk", "openai", "pk", "m") == one.patch.source


def test_within_a_scope_exact_before_pattern_long_before_short_old_before_young() -> None:
    exact, longer, shorter, anything = scoped("gpt-4o-mini"), scoped("gpt-4o-m*"), scoped("gpt-4*"), scoped("*")
    younger = scoped("gpt-4*")
    for overrides, holds in (
        ([anything, shorter, longer, exact], exact),
        ([anything, shorter, longer], longer),
        ([anything, shorter, younger], shorter),
        ([anything, younger, shorter], younger),
        ([anything], anything),
    ):
        assert found(overrides, "", "openai", "", "gpt-4o-mini") == holds.patch.source


def test_what_a_call_does_not_have_matches_nothing_that_asks_for_it() -> None:
    assert found([scoped("m", key="vk"), scoped("m", provider_key="pk")], "", "openai", "", "m") is None


def test_spelling_a_name_differently_does_not_escape() -> None:
    """Upper case, blanks, a resource path, the provider in front: the same model."""
    one = scoped("gemini-2.5-pro")
    for name in ("Gemini-2.5-PRO", " gemini-2.5-pro ", "models/gemini-2.5-pro", "publishers/google/models/gemini-2.5-pro"):
        assert found([one], "", "gemini", "", name) == one.patch.source
    prefixed = scoped("gpt-4o*")
    assert found([prefixed], "", "openai", "", "openai/gpt-4o-mini") == prefixed.patch.source


def test_endless_names_are_nobodys() -> None:
    assert found([scoped("*")], "", "openai", "", "m" * 1_000) is None


def best_seconds(work: Callable[[], object], times: int = 2_000) -> float:
    best = float("inf")
    for _ in range(15):
        started = time.perf_counter()
        for _ in range(times):
            work()
        best = min(best, (time.perf_counter() - started) / times)
    return best


def test_a_lookup_among_a_thousand_takes_at_most_two_microseconds() -> None:
    overrides = [scoped(f"model-{number}*", key=f"vk-{number % 50}") for number in range(500)]
    overrides += [scoped(f"exact-{number}", provider="openai") for number in range(500)]
    prices = ScopedPrices(overrides)
    assert prices.find("vk-7", "openai", "pk", "model-7-large", CHAT) is overrides[7].patch
    assert best_seconds(lambda: prices.find("vk-7", "openai", "pk", "model-7-large", CHAT)) < 2e-6


def test_without_overrides_it_is_next_to_nothing() -> None:
    assert not NO_OVERRIDES and NO_OVERRIDES.find("vk", "openai", "pk", "gpt-4o", CHAT) is None
    assert best_seconds(lambda: NO_OVERRIDES.find("vk", "openai", "pk", "gpt-4o", CHAT)) < 0.5e-6
