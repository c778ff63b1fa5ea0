"""Basis, and which of two series leads: against brute force, and on series whose lead is known."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.arbitrage.basis import Floats, Series, Tops, basis, cross_correlation, hayashi_yoshida, lead_lag
from arb_pipeline_tests.arbitrage.builders import Fees

SECOND = 1_000_000_000


def brute_force(first: Series, second: Series) -> float:
    """Every pair of overlapping changes, one by one."""
    total, a, b = 0.0, np.diff(first.values), np.diff(second.values)
    for i, move in enumerate(a):
        for j, other in enumerate(b):
            overlap = min(first.times_ns[i + 1], second.times_ns[j + 1]) > max(first.times_ns[i], second.times_ns[j])
            total += move * other if overlap else 0.0
    return float(total / np.sqrt((a * a).sum() * (b * b).sum()))


def walk(seed: int, count: int) -> Series:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.integers(1, 3 * SECOND, count)).astype(np.int64)
    values: Floats = 0.5 + np.cumsum(rng.choice([-0.01, 0.01], count)) / 100
    return Series(times, values)


def delayed(series: Series, by_ns: int) -> Series:
    return Series(series.times_ns + by_ns, series.values)


@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(2, 30))
def test_hayashi_yoshida_is_the_sum_over_overlapping_changes(seed: int, many: int, others: int) -> None:
    first, second = walk(seed, many), walk(seed + 1, others)
    assert hayashi_yoshida(first, second) == pytest.approx(brute_force(first, second), abs=1e-12)


def test_a_series_correlates_wholly_with_itself_and_leads_its_delayed_copy() -> None:
    series = walk(1, 500)
    assert hayashi_yoshida(series, series) == pytest.approx(1.0)
    found = lead_lag(series, delayed(series, 4 * SECOND), range(-10_000, 10_001, 1_000))
    assert found.lead_ms == 4_000
    assert found.asymmetry > 2
    assert lead_lag(delayed(series, 4 * SECOND), series, range(-10_000, 10_001, 1_000)).lead_ms == -4_000


def test_cross_correlation_finds_the_delay_on_its_grid() -> None:
    series = walk(2, 800)
    found = cross_correlation(series, delayed(series, 7 * SECOND), step_ms=1_000, most_lag_ms=30_000)
    assert found.lead_ms == 7_000
    assert max(found.values) == pytest.approx(1.0)


def test_what_does_not_move_says_nothing() -> None:
    still = Series(np.array([0, SECOND, 2 * SECOND]), np.array([0.5, 0.5, 0.5]))
    assert np.isnan(hayashi_yoshida(still, walk(3, 10)))
    assert lead_lag(still, walk(3, 10), [0, 1_000]).lead_ms is None


def test_a_basis_is_not_a_gap() -> None:
    kalshi = Tops(Decimal("0.40"), Decimal("0.44"), Decimal(10), Decimal(30))
    polymarket = Tops(Decimal("0.43"), Decimal("0.47"), Decimal(5), Decimal(5))
    found = basis(kalshi, polymarket, (Fees(Decimal("0.07")), Fees(Decimal("0.04"))))
    assert found.mid == Decimal("-0.03")
    assert found.executable_gap == Decimal("-0.01")
    assert found.clipped_gap == 0
    assert kalshi.microprice == Decimal("0.41")
