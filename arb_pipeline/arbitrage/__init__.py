"""Arbitrage between paired markets: exact sizes and fees, executable gaps, episodes and why candidates fail."""
