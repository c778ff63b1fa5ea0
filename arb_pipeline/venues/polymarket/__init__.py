"""Polymarket: wire, book hash, catalogue, session and fees."""
