"""The declared columns of every table, one file per schema version, so that no declaration changes unnoticed.

After a change of ``arb_pipeline/tables.py``: raise ``SCHEMA_VERSION`` and run ``python -m
arb_pipeline_tests.storage.pinned``. A version that is pinned is never written again: lakes of it exist.
"""

import json
import sys
from pathlib import Path
from typing import TypeAlias

from arb_pipeline.tables import SCHEMA_VERSION, TABLES

FOLDER = Path(__file__).with_name("schemas")

Pinned: TypeAlias = dict[str, dict[str, list[str]]]
"""Table to ``columns`` (name, type and, where it may be null, ``null``), ``key``, ``sort`` and ``partitioning``."""


def declared() -> Pinned:
    """What is declared now."""
    return {
        table.name: {
            "columns": [f"{c.name} {c.type}{' null' if c.nullable else ''}" for c in table.columns],
            "key": list(table.key),
            "sort": list(table.sort),
            "partitioning": [*(["venue"] if table.by_venue else []), table.partitioning.value],
        }
        for table in TABLES.values()
    }


def pinned(version: int) -> Pinned:
    """What a version declared."""
    found: Pinned = json.loads((FOLDER / f"{version}.json").read_text())
    return found


def versions() -> list[int]:
    """Versions that are pinned, oldest first."""
    return sorted(int(path.stem) for path in FOLDER.glob("*.json"))


def main() -> int:
    """Pin the present version."""
    path = FOLDER / f"{SCHEMA_VERSION}.json"
    if path.exists() and pinned(SCHEMA_VERSION) != declared():
        sys.stderr.write(f"version {SCHEMA_VERSION} is pinned and says something else: raise SCHEMA_VERSION\n")
        return 1
    path.write_text(json.dumps(declared(), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
