"""Mutated frames among good ones, and the proof that no session raises and none corrupts a book silently."""

from arb_pipeline_tests.fuzzing.fuzzer import Finding, Result, fuzz

__all__ = ["Finding", "Result", "fuzz"]
