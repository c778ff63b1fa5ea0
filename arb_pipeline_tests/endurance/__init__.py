"""Captures that are killed, and captures that run for long, against an exchange in a process of its own."""

from arb_pipeline_tests.endurance.killing import KillResult, kill_trial
from arb_pipeline_tests.endurance.soaking import SoakResult, soak

__all__ = ["KillResult", "SoakResult", "kill_trial", "soak"]
