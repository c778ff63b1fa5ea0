from pathlib import Path

import pytest
from pydantic import SecretStr

from arb_pipeline.capture.listener_store import FileListeners, PostgresListeners, listener_store
from arb_pipeline.capture.listeners import ListenerError
from arb_pipeline.settings import Settings
from arb_pipeline.storage.postgres import PostgresError

YAML = """\
- name: fed
  venue: kalshi
  series_tickers: [KXFED, KXCPI]
  min_volume: 12.5
  forward_fill_interval_ms: 250
- name: coins
  venue: polymarket
  is_active: false
  slug_patterns: bitcoin-*
"""


@pytest.fixture
def settings(postgres_url: str, tmp_path: Path) -> Settings:
    return Settings(postgres_url=SecretStr(postgres_url), listeners_path=tmp_path / "listeners.yaml")


def test_without_postgres_it_is_the_file(tmp_path: Path) -> None:
    store = listener_store(Settings(listeners_path=tmp_path / "listeners.yaml"))
    assert isinstance(store, FileListeners)
    before = store.version()
    store.seed()
    assert store.load()[0].name == "all-kalshi"
    assert store.version() != before


def test_seeding_copies_the_file_and_from_then_on_the_table_counts(settings: Settings) -> None:
    settings.listeners_path.write_text(YAML)
    store = listener_store(settings)
    assert isinstance(store, PostgresListeners)
    from_file = store.load()
    store.seed()
    settings.listeners_path.unlink()
    assert store.load() == from_file
    assert next(one.model_fields_set for one in store.load()) >= {"forward_fill_interval_ms", "min_volume"}
    with pytest.raises(ListenerError, match="left as it is"):
        store.seed()


def test_pausing_resuming_and_adding_are_seen_and_change_the_version(settings: Settings) -> None:
    settings.listeners_path.write_text(YAML)
    store, other = listener_store(settings), listener_store(settings)
    store.seed()
    versions = [other.version()]
    store.set_active("fed", active=False)
    assert [one.is_active for one in other.load()] == [False, False]
    versions.append(other.version())
    store.set_active("coins", active=True)
    versions.append(other.version())
    store.add({"name": "more", "venue": "kalshi", "market_tickers": ["A", "B"]})
    versions.append(other.version())
    assert [one.name for one in other.load()] == ["fed", "coins", "more"]
    assert len(set(versions)) == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "fed", "venue": "kalshi"}, "'fed' already"),
        ({"name": "x", "venue": "nowhere"}, "venue is 'nowhere'"),
        ({"name": "x", "venue": "kalshi", "min_volume": "lots"}, "min_volume"),
        ({"name": "x", "venue": "kalshi", "colour": "red"}, "colour is no field"),
    ],
)
def test_what_is_not_valid_is_refused_and_changes_nothing(
    settings: Settings, fields: dict[str, str], message: str
) -> None:
    settings.listeners_path.write_text(YAML)
    store = listener_store(settings)
    store.seed()
    with pytest.raises(ListenerError, match=message):
        store.add(fields)
    with pytest.raises(ListenerError, match="no listener 'nobody'; it has fed, coins"):
        store.set_active("nobody", active=True)
    assert [one.name for one in store.load()] == ["fed", "coins"]


def test_a_file_is_not_pushed_aside_by_the_first_listener_of_an_empty_table(settings: Settings) -> None:
    settings.listeners_path.write_text(YAML)
    store = listener_store(settings)
    with pytest.raises(ListenerError, match="arb listeners seed"):
        store.add({"name": "x", "venue": "kalshi"})
    assert [one.name for one in store.load()] == ["fed", "coins"]


def test_while_postgres_is_down_a_start_reads_the_file_and_a_running_capture_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "listeners.yaml"
    path.write_text(YAML)
    url = SecretStr("postgresql://me:s3cret@127.0.0.1:1/none")
    store = listener_store(Settings(postgres_url=url, listeners_path=path))
    assert [one.name for one in store.load()] == ["fed", "coins"]
    with pytest.raises(PostgresError):
        store.load(strict=True)
    with pytest.raises(PostgresError):
        store.version()
    assert "s3cret" not in store.place
