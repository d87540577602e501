"""Limits of this process."""

import dataclasses

import pytest

from addons.proxy import mitm
from addons.proxy.limits import Limits, current_limits


def test_limits_must_be_above_zero():
    with pytest.raises(ValueError, match="idle_stream_timeout_seconds must be above zero, not 0"):
        mitm.set_limits(Limits(idle_stream_timeout_seconds=0))


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Limits)])
@pytest.mark.parametrize("value", [0, -1])
def test_no_limit_may_be_zero(name, value):
    before = current_limits()
    with pytest.raises(ValueError, match=f"the limit {name} must be above zero, not {value}"):
        mitm.set_limits(Limits(**{name: value}))
    assert current_limits() is before


def test_defaults_are_those_of_the_configuration():
    limits = Limits()
    assert (limits.max_body_bytes, limits.max_header_bytes, limits.max_connections) == (33_554_432, 65_536, 10_000)
    assert (limits.header_timeout_seconds, limits.connect_timeout_seconds) == (10, 10)
    assert (limits.first_byte_timeout_seconds, limits.idle_stream_timeout_seconds) == (600, 300)
