"""What is derived from captured market data: candles, books filled forward; and the backfill of trades."""
