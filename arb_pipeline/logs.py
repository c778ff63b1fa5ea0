"""Log lines: standard logging, rendered by structlog as text for people or as one JSON object a line.

Modules log through :mod:`logging` and put figures into ``extra``; those become fields. Fields that hold for a while
(run, shard) are bound with :func:`structlog.contextvars.bound_contextvars`. Every line is stripped of secrets last.
"""

import logging
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, TextIO

import structlog
from pydantic import SecretStr
from structlog.typing import EventDict, Processor, WrappedLogger

from arb_pipeline.settings import Settings

__all__ = ["configure_logging"]

_HIDDEN: Final = "***"
_SECRET_NAME: Final = re.compile(
    r"(?i)\A(?:kalshi-access-\w+|authorization|cookie|.*(?:private_?key|api_?key|password|secret)\w*)\Z"
)
_PATTERNS: Final = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"(?i)(?<=kalshi-access-)(?P<name>key|signature)(?P<sign>['\"]?\s*[:=,]\s*b?['\"]?)[^\s'\",;})\]]+"),
    re.compile(r"(?i)(?<=authorization)(?P<sign>['\"]?\s*[:=,]\s*['\"]?)(?:\w+ )?[^\s'\",;})\]]+"),
    re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]*(?=@)"),
)
"""What is secret wherever it stands: keys, signed headers, passwords in addresses."""


def configure_logging(settings: Settings, *, package_only: bool = False) -> None:
    """Send this process's log lines to standard error in the settings' format; calling it again replaces that.

    The level is that of this package. Libraries are heard from warnings on: what they say below that includes request
    headers, and those are signed.

    Args:
        package_only: leave libraries alone, where a framework has log lines of its own.
    """
    package = logging.getLogger("arb_pipeline")
    level = logging.getLevelNamesMapping()[settings.log_level]
    handler = _StandardError()
    handler.setFormatter(_formatter(settings))
    for logger in (logging.getLogger(), package):
        for earlier in [one for one in logger.handlers if isinstance(one, _StandardError)]:
            logger.removeHandler(earlier)
    if package_only:
        package.addHandler(handler)
    else:
        root = logging.getLogger()
        root.addHandler(handler)
        root.setLevel(max(level, logging.WARNING))
    package.setLevel(level)


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to whatever standard error is at the time, so that a progress bar may take it over."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override] # as logging's own last resort does
        return sys.stderr


def _formatter(settings: Settings) -> logging.Formatter:
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        _without_repeats,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
        )
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _Redaction(settings),
            renderer,
        ],
    )


def _without_repeats(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """What another handler's formatter put into the record is no extra field."""
    return {name: value for name, value in event.items() if name not in {"message", "asctime"}}


class _Redaction:
    """Takes secrets out of an event: values of the settings, and whatever looks like one."""

    def __init__(self, settings: Settings) -> None:
        values = [getattr(settings, name) for name in type(settings).model_fields]
        plain = [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
        self._known = [secret for secret in (*plain, settings.kalshi_api_key_id) if secret]

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {name: self._clean(value, name) for name, value in event.items()}

    def _clean(self, value: object, name: str = "") -> Any:
        if _SECRET_NAME.match(name):
            return _HIDDEN
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, Mapping):
            return {str(key): self._clean(inner, str(key)) for key, inner in value.items()}
        if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
            return [self._clean(inner) for inner in value]
        text = str(value)
        for secret in self._known:
            text = text.replace(secret, _HIDDEN)
        for pattern in _PATTERNS:
            text = pattern.sub(_hide, text)
        return text


def _hide(found: "re.Match[str]") -> str:
    """The name and the sign before the secret, where the pattern took them in."""
    kept = found.groupdict()
    return f"{kept.get('name', '')}{kept.get('sign', '')}{_HIDDEN}"
