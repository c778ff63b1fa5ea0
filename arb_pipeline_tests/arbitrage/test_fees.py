"""Fee models by time: each is asked for once per validity, and fees that are no money are not priced."""

import json
from datetime import datetime, timedelta
from decimal import Decimal

from arb_pipeline.arbitrage.fees import FeeBook
from arb_pipeline.arbitrage.opportunities import evaluate
from arb_pipeline.model import Market
from arb_pipeline.venues.base import FeeModel
from arb_pipeline.venues.polymarket.fees import CLOB_V2, fee_model
from arb_pipeline_tests.arbitrage.builders import END, START, Fees, Tape, market, pair, settings


def charged(rate: str) -> Market:
    return market("polymarket", fee_params={"feesEnabled": True, "feeSchedule": {"rate": rate, "exponent": 1}})


def test_fees_taken_in_shares_are_refused_up_to_the_change_and_priced_from_then_on() -> None:
    asked: list[datetime] = []

    def source(one: Market, at: datetime) -> FeeModel:
        asked.append(at)
        return fee_model(one, at)

    book, one = FeeBook(source), charged("0.04")
    told = book.at(one, CLOB_V2 - timedelta(days=2))
    assert isinstance(told, str)
    assert told.startswith("polymarket 0xabc: buyers pay the fee in contracts (polymarket fees rate 0.04 exponent 1")
    assert book.at(one, CLOB_V2 - timedelta(days=1)) == told
    assert len(asked) == 1, "the answer holds until the change"
    model = book.at(one, CLOB_V2)
    assert not isinstance(model, str)
    assert model.marginal(Decimal("0.5")) == Decimal("0.01")


def test_a_market_without_fees_is_priced_at_any_time() -> None:
    assert not isinstance(FeeBook(fee_model).at(charged("0"), CLOB_V2 - timedelta(days=1)), str)


def test_a_gap_of_that_time_is_known_and_its_net_is_not() -> None:
    class InShares(Fees):
        def received(self, price: Decimal, size: Decimal) -> Decimal:
            return size - self.taker(price, size) / price

    def source(one: Market, _: datetime) -> FeeModel:
        return InShares(Decimal("0.04")) if one.venue == "polymarket" else Fees()

    tape = Tape().session("kalshi").session("polymarket")
    tape.snapshot("kalshi", 1, [("0.40", "9")], [("0.42", "9")]).snapshot("polymarket", 1, [("0.50", "9")], [])
    found = evaluate([pair()], tape.data(), START, END, settings(), source)
    (spread,) = found.spreads.to_pylist()
    assert (spread["gap_yes_kalshi"], spread["net_yes_kalshi"]) == (Decimal("0.08"), None)
    (row,) = found.opportunities.to_pylist()
    (reason,) = json.loads(row["reasons"])
    assert reason.startswith("fees_unknown:polymarket 0xabc: buyers pay the fee in contracts (test)")
    assert (row["accepted"], row["size"], row["net"]) == (False, 0, 0)
