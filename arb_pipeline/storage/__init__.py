"""Where rows are kept: the Parquet lake, the catalogue inside it, and SQL over both."""

from arb_pipeline.storage.lake import Lake, LakeError, Partition

__all__ = ["Lake", "LakeError", "Partition"]
