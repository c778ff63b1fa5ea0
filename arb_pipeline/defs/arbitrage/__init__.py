"""Arbitrage: spreads and opportunities by hour, and the report."""
