from arb_pipeline.defs.progress import log_progress


class _Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, template: str, *values: object) -> None:
        self.lines.append(template % values)


def test_each_step_is_logged_at_once_and_then_now_and_again() -> None:
    now, log = [0.0], _Log()
    progress = log_progress(log, every_s=5.0, monotonic=lambda: now[0])  # type: ignore[arg-type]
    for second in range(12):
        now[0] = float(second)
        progress("events", second)
    progress("markets", 1)
    assert log.lines == ["events: 0", "events: 5", "events: 10", "markets: 1"]
