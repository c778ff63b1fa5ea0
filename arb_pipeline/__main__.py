"""``python -m arb_pipeline``: the same as ``arb``."""

from arb_pipeline.cli import main

main()
