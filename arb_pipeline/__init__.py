"""Live order books of Kalshi and Polymarket, matched markets, and arbitrage that would really have paid."""

__version__ = "0.1.0"
