"""The operator's price file: what it may say, what it overrules, and how mistakes are told."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from store.errors import SettingsError
from store.prices.book import PriceBook
from store.prices.cost import cost_nanos
from store.prices.limits import LimitsBook
from store.prices.overrides import load_overrides, parse_overrides
from store.prices.types import ModelPrice
from store.usage import Usage

NOW = int(datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp() * 1000)
DECEMBER = int(datetime(2026, 12, 1, tzinfo=UTC).timestamp() * 1000)


def book(text: str) -> PriceBook:
    return PriceBook.load(parse_overrides(text.encode(), "prices.toml"))


def in_out(price: ModelPrice | None) -> tuple[int, int]:
    assert price is not None
    return price.tiers[0].rates.input_picos, price.tiers[0].rates.output_picos


def test_own_prices_come_before_the_data_and_are_exact() -> None:
    prices = book("""
        [[price]]
        provider = "openai"
        model = "gpt-4o-mini"
        input_usd_per_mtok = 0.1
        output_usd_per_mtok = "0.4000001"
        cache_read_usd_per_mtok = 0.05
        web_search_usd = 0.025
        request_usd = 0.000_1
    """)
    price = prices.price("openai", "GPT-4o-mini", NOW)
    assert in_out(price) == (100_000, 400_001)  # a tenth of a pico-dollar is rounded up
    assert price is not None and price.source.startswith("override ") and len(price.source) == len("override ") + 8
    usage = Usage(input_tokens=1000, output_tokens=10, cache_read_tokens=200, web_searches=1)
    # 800 x 100 + 200 x 50 + 10 x 400.001 nanos, a search, a request
    assert cost_nanos(price, usage) == 80_000 + 10_000 + 4001 + 25_000_000 + 100_000
    assert in_out(prices.price("openai", "gpt-4o", NOW)) == (2_500_000, 10_000_000)


def test_free_is_free_at_every_tier_speed_and_region() -> None:
    prices = book('[[price]]\nprovider = "ollama"\nmodel = "*"\nfree = true\n')
    for words in ({}, {"service_tier": "ultrafast"}, {"speed": "fast"}, {"batch": True}):
        price = prices.price("ollama", "llama3", NOW, **words)
        assert price is not None and price.is_zero
        assert cost_nanos(price, Usage(input_tokens=10**6, output_tokens=10**6, web_searches=3)) == 0


def test_alias_takes_price_tiers_and_limits_of_its_target() -> None:
    prices = book("""
        [[price]]
        provider = "azure"
        model = "our-deployment"
        alias_of = "gpt-4o"
        [[price]]
        provider = "my-proxy"
        model = "big"
        alias_of = "openai/gpt-5"
    """)
    price = prices.price("azure", "our-deployment", NOW)
    assert in_out(price) == (2_500_000, 10_000_000)
    assert price is not None and "genai-prices" in price.source and price.source.startswith("override ")
    assert in_out(prices.price("my-proxy", "big", NOW, service_tier="priority")) == (2_500_000, 20_000_000)
    assert prices.price("my-proxy", "big", NOW, service_tier="ultrafast") is None
    assert LimitsBook.load(prices).limits("azure", "our-deployment").max_output_tokens == 16_384


def test_an_alias_that_leads_nowhere_is_refused_at_once() -> None:
    with pytest.raises(SettingsError, match="openai/x an alias of 'gpt-4oo'"):
        book('[[price]]\nprovider = "openai"\nmodel = "x"\nalias_of = "gpt-4oo"\n')


def test_dated_entries_hold_from_their_start() -> None:
    prices = book("""
        [[price]]
        provider = "openai"
        model = "gpt-4o"
        starts_at = 2026-12-01T00:00:00Z
        input_usd_per_mtok = 7
        output_usd_per_mtok = 8
        [[price]]
        provider = "openai"
        model = "gpt-4o"
        starts_at = "2027-01-01T00:00:00+00:00"
        input_usd_per_mtok = 9
        output_usd_per_mtok = 10
    """)
    assert in_out(prices.price("openai", "gpt-4o", DECEMBER - 1)) == (2_500_000, 10_000_000)
    assert in_out(prices.price("openai", "gpt-4o", DECEMBER)) == (7_000_000, 8_000_000)
    assert in_out(prices.price("openai", "gpt-4o", DECEMBER + 40 * 86_400_000)) == (9_000_000, 10_000_000)


def test_the_most_precise_pattern_wins() -> None:
    prices = book("""
        [[price]]
        provider = "*"
        model = "*"
        input_usd_per_mtok = 1
        output_usd_per_mtok = 1
        [[price]]
        provider = "vllm"
        model = "llama*"
        input_usd_per_mtok = 2
        output_usd_per_mtok = 2
        [[price]]
        provider = "vllm"
        model = "llama-3*"
        input_usd_per_mtok = 2.5
        output_usd_per_mtok = 2.5
        [[price]]
        provider = "vllm"
        model = "llama-3"
        input_usd_per_mtok = 3
        output_usd_per_mtok = 3
    """)
    assert in_out(prices.price("vllm", "llama-3", NOW)) == (3_000_000, 3_000_000)
    assert in_out(prices.price("vllm", "llama-3x", NOW)) == (2_500_000, 2_500_000)
    assert in_out(prices.price("vllm", "llama-4", NOW)) == (2_000_000, 2_000_000)
    assert in_out(prices.price("anyone", "anything", NOW)) == (1_000_000, 1_000_000)


def test_service_tiers_of_an_own_price() -> None:
    prices = book("""
        [[price]]
        provider = "openai"
        model = "gpt-5"
        input_usd_per_mtok = 1
        output_usd_per_mtok = 9
        [[price]]
        provider = "openai"
        model = "gpt-5"
        service_tier = "priority"
        input_usd_per_mtok = 2
        output_usd_per_mtok = 8
    """)
    assert in_out(prices.price("openai", "gpt-5", NOW)) == (1_000_000, 9_000_000)
    assert in_out(prices.price("openai", "gpt-5", NOW, service_tier="flex")) == (1_000_000, 9_000_000)
    assert in_out(prices.price("openai", "gpt-5", NOW, service_tier="priority")) == (2_000_000, 8_000_000)
    assert in_out(prices.price("openai", "gpt-5", NOW, service_tier="auto")) == (2_000_000, 9_000_000)
    assert prices.price("openai", "gpt-5", NOW, service_tier="ultrafast") is None


def test_an_own_price_for_one_tier_alone_leaves_the_others_to_the_data() -> None:
    prices = book("""
        [[price]]
        provider = "openai"
        model = "gpt-6-astra"
        service_tier = "ultrafast"
        input_usd_per_mtok = 60
        output_usd_per_mtok = 300
    """)
    assert in_out(prices.price("openai", "gpt-6-astra", NOW)) == (10_000_000, 50_000_000)
    assert in_out(prices.price("openai", "gpt-6-astra", NOW, service_tier="ultrafast")) == (60_000_000, 300_000_000)
    assert in_out(prices.price("openai", "gpt-6-astra", NOW, service_tier="priority")) == (20_000_000, 100_000_000)
    assert in_out(prices.price("openai", "gpt-6-astra", NOW, service_tier="auto")) == (60_000_000, 300_000_000)


def test_long_context_tiers_and_surcharges_of_an_own_price() -> None:
    prices = book("""
        [[price]]
        provider = "anthropic"
        model = "claude-next"
        input_usd_per_mtok = 1
        output_usd_per_mtok = 2
        [[price.tier]]
        above_input_tokens = 1000
        input_usd_per_mtok = 10
        output_usd_per_mtok = 20
    """)
    price = prices.price("anthropic", "claude-next", NOW, region="us", speed="fast")
    assert price is not None and price.multiplier == (22, 10)
    assert cost_nanos(price, Usage(input_tokens=1000)) == 2_200_000
    assert cost_nanos(price, Usage(input_tokens=1001)) == 22_022_000


def test_limits_alone_leave_the_price_to_the_data() -> None:
    prices = book("""
        [[price]]
        provider = "openai"
        model = "gpt-4o"
        max_output_tokens = 1234
        context_tokens = 5678
    """)
    assert in_out(prices.price("openai", "gpt-4o", NOW)) == (2_500_000, 10_000_000)
    limits = LimitsBook.load(prices).limits("openai", "gpt-4o")
    assert (limits.context_tokens, limits.max_output_tokens) == (5678, 1234)


TIER = "[[price.tier]]\n"
PRICED = 'provider = "p"\nmodel = "m"\ninput_usd_per_mtok = 1\noutput_usd_per_mtok = 2\n'


@pytest.mark.parametrize(
    "text, message",
    [
        ("[[price]\n", "not valid TOML"),
        ('[[prices]]\nprovider = "p"\n', "'prices' is not a known table"),
        ("price = 1\n", "two brackets"),
        ('[price]\nprovider = "p"\n', "two brackets"),
        ('[[price]]\nmodel = "m"\nfree = true\n', "price[1].provider is missing."),
        ('[[price]]\nprovider = "p"\nmodel = ""\nfree = true\n', "price[1].model: "),
        ('[[price]]\nprovider = "p"\nmodel = "m"\n', "price[1]: give prices, free = true, alias_of"),
        ('[[price]]\nprovider = "p"\nmodel = "m"\nfree = true\nalias_of = "x"\n', "only one of"),
        ('[[price]]\nprovider = "p"\nmodel = "m"\nfree = "yes"\n', "price[1].free"),
        ('[[price]]\nprovider = "p"\nmodel = "m"\ninput_usd_per_mtok = 1\n', "both input_usd_per_mtok and output_usd_per_mtok"),
        ('[[price]]\nprovider = "p"\nmodel = "m"\nfree = true\ncache_read_usd_per_mtok = 1\n', "beside the other prices"),
        ("[[price]]\n" + PRICED + "inptu_usd_per_mtok = 1\n", "is not a known key; did you mean 'input_usd_per_mtok'?"),
        ("[[price]]\n" + PRICED + "zzz = 1\n", "zzz is not a known key."),
        ("[[price]]\n" + PRICED.replace("= 1", "= -1"), "price[1].input_usd_per_mtok: Input should be greater than or equal to 0."),
        ("[[price]]\n" + PRICED.replace("= 1", "= nan"), "input_usd_per_mtok"),
        ("[[price]]\n" + PRICED.replace("= 1", "= inf"), "input_usd_per_mtok"),
        ("[[price]]\n" + PRICED.replace("= 1", "= true"), "input_usd_per_mtok: should be a number."),
        ("[[price]]\n" + PRICED.replace("= 1", '= "a lot"'), "input_usd_per_mtok"),
        ("[[price]]\n" + PRICED + "max_output_tokens = 0\n", "max_output_tokens"),
        ("[[price]]\n" + PRICED + 'starts_at = "2026-12-01T00:00:00"\n', "starts_at"),
        ("[[price]]\n" + PRICED + TIER + "input_usd_per_mtok = 1\noutput_usd_per_mtok = 1\n", "above_input_tokens is missing."),
        ("[[price]]\n" + PRICED + TIER + "above_input_tokens = 5\n", "tier[1]: give input_usd_per_mtok"),
        ("[[price]]\n" + PRICED + "[[price]]\n" + PRICED, "price[2] is for the same model, tier and start as price[1]"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence_that_names_the_place(text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_overrides(text.encode(), "prices.toml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("prices.toml")
    assert "\n" not in str(caught.value) or "TOML" in message


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_overrides(tmp_path / "missing.toml")
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'[[price]]\nprovider = "\xe9"\n')
    with pytest.raises(SettingsError, match="UTF-8"):
        load_overrides(latin)


def test_a_file_is_named_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text("[[price]]\n" + PRICED)
    first = load_overrides(path)
    path.write_text("[[price]]\n" + PRICED + "# a note\n")
    assert len(first) == 1 and first.source != load_overrides(path).source


def test_an_empty_file_overrules_nothing() -> None:
    assert in_out(book("").price("openai", "gpt-4o", NOW)) == (2_500_000, 10_000_000)
