"""Matching: pairs of markets that mean the same, and the queue that waits for a person."""
