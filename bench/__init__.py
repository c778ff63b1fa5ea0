"""Benchmarks and long runs, each a script of its own; see the Makefile."""
