"""The local exchange: both venues' REST and WebSocket protocols on 127.0.0.1, over a recording or a generated market.

It is how the product is tried without keys, how tests run, and how benchmarks are fed. Its name is in every run, table
and report made from it, so that it is never mistaken for the real thing.
"""

from arb_pipeline.exchange.generated import GeneratedSource
from arb_pipeline.exchange.recorded import RecordingSource
from arb_pipeline.exchange.server import Exchange, run_forever, start
from arb_pipeline.exchange.source import Source

__all__ = ["Exchange", "GeneratedSource", "RecordingSource", "Source", "run_forever", "start"]
