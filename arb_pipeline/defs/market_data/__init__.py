"""Market data by the day: candles, and the backfill of trades."""
