from decimal import Decimal
from pathlib import Path

import pytest

from arb_pipeline.alerting.findings import move_finding, spread_finding
from arb_pipeline.alerting.positions import Position, load_positions, positions_of_account
from arb_pipeline.alerting.rules import AlertError, PriceMove, Spread
from arb_pipeline.venues.base import Position as Held

D = Decimal
MILLION = 1_000_000


def test_yaml_and_csv_say_the_same(tmp_path: Path) -> None:
    listed, table = tmp_path / "held.yaml", tmp_path / "held.csv"
    listed.write_text("- {venue: kalshi, market_id: NO, outcome: 'Yes', size: 10, entry: 0.45}\n")
    table.write_text("venue, market_id, outcome, size, entry\nkalshi,NO,yes,10,0.45\n")
    assert load_positions(listed) == load_positions(table)
    [position] = load_positions(table)
    assert (position.subject, position.entry) == ("kalshi NO YES", D("0.45"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- {venue: kalshi, market_id: K, outcome: yes, size: 0, entry: 0.4}", "position 1: size: .*got '0'"),
        ("- {venue: kalshi, market_id: K, outcome: yes, size: 1, entry: 40}", "entry: .*got '40'"),
        ("- {venue: kalshi, market_id: K, outcome: maybe, size: 1, entry: 0.4}", "outcome: .*got 'maybe'"),
        ("- {venue: intrade, market_id: K, outcome: yes, size: 1, entry: 0.4}", "venue: .*no venue 'intrade'"),
        ("- &a {venue: kalshi, market_id: K, outcome: yes, size: 1, entry: 0.4}\n- *a", "position 2: .* average entry"),
        ("a: b", "holds no list"),
        ("[", "is not YAML"),
    ],
)
def test_errors_name_place_field_and_value(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "held.yaml"
    path.write_text(text)
    with pytest.raises(AlertError, match=told):
        load_positions(path)
    with pytest.raises(AlertError, match="cannot be read"):
        load_positions(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("given", "market_id"),
    [("kxfed-26dec", "KXFED-26DEC"), ("0xAB" + "C" * 60, "0xab" + "c" * 60 + "00"), ("0xAbc", "0xabc")],
)
def test_ids_are_those_of_the_venues_however_they_are_written(tmp_path: Path, given: str, market_id: str) -> None:
    path = tmp_path / "held.csv"
    path.write_text(f"venue,market_id,outcome,size,entry\nkalshi,{given},yes,10,0.45\n")
    [position] = load_positions(path)
    assert position.market_id == market_id


def test_a_position_of_an_account_without_a_possible_entry_is_left_out_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    held = [Held("DEAR", D(20), D(21), D(0), D(0)), Held("M", D(4), D(3), D(0), D(0))]
    for _ in range(2):
        assert [one.market_id for one in positions_of_account("kalshi", held)] == ["M"]
    [record] = caplog.records
    assert "kalshi DEAR: 20 contracts that cost 21" in record.getMessage()


def test_an_account_tells_what_was_paid_by_contract() -> None:
    held = [Held("K", D(-20), D(10), D(0), D(0)), Held("L", D(0), D(0), D(5), D(0)), Held("M", D(4), D(3), D(0), D(0))]
    told = positions_of_account("kalshi", held)
    assert [(one.market_id, one.outcome, one.size, one.entry) for one in told] == [
        ("K", "no", D(20), D("0.5")),
        ("M", "yes", D(4), D("0.75")),
    ]


@pytest.mark.parametrize(
    ("outcome", "price", "direction", "holds"),
    [
        ("yes", "exit", "gain", True),  # sold at the bid, 0.60
        ("yes", "exit", "loss", False),
        ("yes", "mid", "any", True),  # 0.63
        ("no", "exit", "loss", True),  # sold at 1 - 0.66
        ("no", "exit", "gain", False),
        ("no", "mid", "loss", True),  # 0.37
    ],
)
def test_a_move_is_that_of_the_held_outcome(outcome: str, price: str, direction: str, holds: bool) -> None:
    position = Position.model_validate(
        {"venue": "kalshi", "market_id": "K", "outcome": outcome, "size": 10, "entry": "0.50"}
    )
    rule = PriceMove.model_validate(
        {"name": "r", "kind": "price_move", "by": "0.10", "price": price, "direction": direction}
    )
    assert move_finding(rule, position, (6_000, MILLION, 6_600, MILLION)).holds is holds
    assert move_finding(rule, position, (None, None, None, None)).holds is None


@pytest.mark.parametrize(
    ("top", "holds"),
    [
        ((4_900, MILLION, 5_000, MILLION), True),
        ((4_899, MILLION, 5_000, MILLION), False),
        ((4_900, MILLION - 1, 5_000, MILLION), False),
        ((None, None, 5_000, MILLION), False),
    ],
)
def test_a_spread_is_at_most_with_size_on_both_sides(
    top: tuple[int | None, int | None, int | None, int | None], holds: bool
) -> None:
    rule = Spread(name="r", kind="spread", at_most=D("0.01"), min_size=D(1))
    assert spread_finding(rule, top).holds is holds
