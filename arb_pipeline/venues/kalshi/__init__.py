"""Kalshi: wire, authentication, catalogue, session and fees."""
