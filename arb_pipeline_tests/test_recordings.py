import gzip
import json
from pathlib import Path

import pytest

from arb_pipeline.recordings import Frame, Recording, RecordingError, write_recording


def write(root: Path, venue: str, lines: list[object]) -> None:
    (root / venue).mkdir(parents=True, exist_ok=True)
    with gzip.open(root / venue / "frames.jsonl.gz", "wt") as file:
        file.writelines((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)


def line(recv_ns: int, conn: str = "c", frame: str = "{}") -> dict[str, object]:
    return {"recv_ns": recv_ns, "conn": conn, "frame": frame}


def test_frames_come_back_as_recorded(tmp_path: Path) -> None:
    write(tmp_path, "kalshi", [line(2, "x", '{"a": "é"}'), line(1, "y")])
    recording = Recording.open(tmp_path)
    assert list(recording.frames("kalshi")) == [Frame(2, "x", '{"a": "é"}'), Frame(1, "y", "{}")]
    assert list(recording.frames("polymarket")) == []
    assert (recording.name, recording.venues) == (tmp_path.name, ("kalshi",))


def test_venues_are_merged_by_receive_time_ties_alphabetically(tmp_path: Path) -> None:
    write(tmp_path, "polymarket", [line(1), line(3), line(5)])
    write(tmp_path, "kalshi", [line(2), line(3), line(9)])
    merged = [(venue, frame.recv_ns) for venue, frame in Recording.open(tmp_path).all_frames()]
    assert merged == [
        ("polymarket", 1),
        ("kalshi", 2),
        ("kalshi", 3),
        ("polymarket", 3),
        ("polymarket", 5),
        ("kalshi", 9),
    ]


def test_every_file_is_optional(tmp_path: Path) -> None:
    (tmp_path / "polymarket").mkdir()
    (tmp_path / "polymarket" / "books.json").write_text("[]")
    recording = Recording.open(tmp_path)
    assert recording.meta == {"use_yes_price": False, "exchange": False}
    assert (recording.pairs, recording.events("polymarket"), recording.books("polymarket")) == ([], [], [])
    assert recording.books("kalshi") is None


def test_meta_overrides_the_defaults(tmp_path: Path) -> None:
    write(tmp_path, "kalshi", [])
    (tmp_path / "meta.json").write_text('{"use_yes_price": true, "venues": ["kalshi"]}')
    assert Recording.open(tmp_path).meta == {"use_yes_price": True, "exchange": False, "venues": ["kalshi"]}


@pytest.mark.parametrize("bad", ["{", '{"recv_ns": 1, "conn": "c"}', '{"recv_ns": "1", "conn": "c", "frame": "f"}'])
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, bad: str) -> None:
    write(tmp_path, "kalshi", [line(1), bad])
    with pytest.raises(RecordingError, match=r"kalshi/frames\.jsonl\.gz line 2: "):
        list(Recording.open(tmp_path).frames("kalshi"))


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, "kalshi", [])
    (tmp_path / "pairs.json").write_text("[1,")
    with pytest.raises(RecordingError, match=r"pairs\.json is not JSON"):
        _ = Recording.open(tmp_path).pairs


def test_a_folder_that_is_no_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="holds no venue's folder"):
        Recording.open(tmp_path)
    with pytest.raises(RecordingError, match="give a folder in the recording format"):
        Recording.open(tmp_path / "absent")


def test_the_real_recordings_are_of_the_format(recordings: Path) -> None:
    for name, venues in {
        "crossvenue-202607": ("kalshi", "polymarket"),
        "kalshi-btc15m": ("kalshi",),
        "kalshi-gold15m": ("kalshi",),
    }.items():
        recording = Recording.open(recordings / name)
        assert recording.venues == venues
        times = [frame.recv_ns for _, frame in recording.all_frames()]
        assert times == sorted(times)


def test_what_is_written_reads_back_and_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    events = {"kalshi": [{"event_ticker": "E", "markets": [{"ticker": "é"}]}]}
    frames = {"kalshi": [Frame(1, "a", '{"x":"é\\n"}'), Frame(2, "b", "PONG")], "polymarket": [Frame(3, "c", "")]}
    meta = {"venues": ["kalshi", "polymarket"], "use_yes_price": True, "exchange": True}
    for name in ("one", "two"):
        written = write_recording(tmp_path / name, events, frames, meta)
        assert written == {"kalshi": 2, "polymarket": 1}
    recording = Recording.open(tmp_path / "one")
    assert recording.venues == ("kalshi", "polymarket")
    assert recording.events("kalshi") == events["kalshi"]
    assert recording.events("polymarket") == []
    assert {venue: list(recording.frames(venue)) for venue in recording.venues} == frames
    assert recording.meta == meta
    for path in (tmp_path / "one").rglob("*.*"):
        assert (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes() == path.read_bytes(), path


def test_a_recording_never_goes_into_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    for target in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(RecordingError, match="a folder of its own"):
            write_recording(target, {}, {"kalshi": [Frame(1, "a", "")]}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
