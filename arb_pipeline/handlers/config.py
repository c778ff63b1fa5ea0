"""From a handler's entry in the listeners' file to the callables that it stands for."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import Annotated, Any, Final, TypeVar, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from arb_pipeline.errors import ArbError
from arb_pipeline.handlers.api import HandlerContext, kinds_of, message_types_of

__all__ = ["SHIPPED", "Handler", "HandlerConfig", "HandlerError", "build"]

SHIPPED: Final[Mapping[str, str]] = {
    "price_alert": "arb_pipeline.handlers.shipped:PriceAlert",
    "tight_spread": "arb_pipeline.handlers.shipped:TightSpread",
    "position_monitor": "arb_pipeline.handlers.shipped:PositionMonitor",
}
"""Short names of the handlers that come with the package."""

T = TypeVar("T")
_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_Many = Annotated[tuple[T, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
_Use = Annotated[_Text, StringConstraints(pattern=rf"^({'|'.join(SHIPPED)}|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$")]
_Call = Callable[[Any, HandlerContext], object]


class HandlerError(ArbError, ValueError):
    """A handler that cannot be used; the message names it, the field, the value and the remedy."""


class HandlerConfig(BaseModel):
    """A handler as the listeners' file names it.

    Attributes:
        use: a short name (see :data:`SHIPPED`) or ``package.module:name`` of a decorated function or class.
        venues, markets: what it is told of; ``*`` and ``?`` may stand in a market's id. None means all.
        parameters: by name, for the function or for the class.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: _Text
    use: _Use
    is_active: bool = True
    venues: _Many[_Text] = ()
    markets: _Many[_Text] = ()
    parameters: Mapping[str, Any] = {}

    @property
    def shipped(self) -> bool:
        """Whether it comes with the package, so that loading it runs nobody else's code."""
        return self.use in SHIPPED


class Handler:
    """A handler that is ready to be called.

    Attributes:
        events: its callables by kind of event.
        frames: its callables by (venue, message type).
    """

    def __init__(self, config: HandlerConfig) -> None:
        self.name = config.name
        self.events: dict[str, list[_Call]] = {}
        self.frames: dict[tuple[str, str], list[_Call]] = {}
        self._venues = frozenset(config.venues)
        self._patterns = [market.lower() for market in config.markets]
        self._wanted: dict[str, bool] = {}

    def add(self, function: _Call, marked: object) -> None:
        """Have ``function`` called with what ``marked`` was decorated for."""
        for kind in kinds_of(marked):
            self.events.setdefault(kind, []).append(function)
        for frame in message_types_of(marked):
            self.frames.setdefault(frame, []).append(function)

    def wants_venue(self, venue: str) -> bool:
        """Whether it is to be told of a venue."""
        return (not self._venues or venue in self._venues) and (
            bool(self.events) or any(venue == name for name, _ in self.frames)
        )

    def wants_market(self, market_id: str) -> bool:
        """Whether it is to be told of a market; of what belongs to none (an empty id) it always is."""
        if not self._patterns or not market_id:
            return True
        wanted = self._wanted.get(market_id)
        if wanted is None:
            # A condition id may be written without its trailing zero byte, as the listeners take it, too.
            wanted = any(
                fnmatchcase(market_id.lower(), pattern.ljust(66, "0") if len(pattern) == 64 else pattern)
                for pattern in self._patterns
            )
            self._wanted[market_id] = wanted
        return wanted


def build(config: HandlerConfig) -> Handler:
    """Import what a configuration names and make it ready; this runs the code of its module.

    Raises:
        HandlerError: if it cannot be imported, is not decorated, or does not take the parameters.
    """
    called = f"handler {config.name!r}"
    path = SHIPPED.get(config.use, config.use)
    target = _import(path, called)
    handler = Handler(config)
    if inspect.isclass(target):
        arguments = _arguments(target, target.__init__, config, called, skip=0)
        try:
            instance = target(**arguments)
        except Exception as error:
            raise HandlerError(f"{called}: {path} refuses its parameters: {error}") from error
        for _, method in inspect.getmembers(instance, inspect.ismethod):
            handler.add(method, method)
    elif callable(target):
        handler.add(partial(target, **_arguments(target, target, config, called, skip=2)), target)
    if not (handler.events or handler.frames):
        raise HandlerError(f"{called}: {path} handles nothing: decorate it, or methods of it, with @on or @on_frame")
    return handler


def _import(path: str, called: str) -> Any:
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except AttributeError as error:
        raise HandlerError(f"{called}: use: module {module} has no {name!r}: correct the name") from error
    except Exception as error:
        raise HandlerError(
            f"{called}: use: {module} cannot be imported ({type(error).__name__}: {error}): give "
            "package.module:name of a module that Python finds, PYTHONPATH included"
        ) from error


def _arguments(
    target: Callable[..., object], annotated: object, config: HandlerConfig, called: str, *, skip: int
) -> dict[str, object]:
    """The parameters, converted to the types that the signature asks for."""
    signature = list(inspect.signature(target).parameters.values())[skip:]
    known = {p.name: p for p in signature if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}}
    hints = get_type_hints(annotated, include_extras=True)
    for name in config.parameters:
        if name not in known:
            raise HandlerError(
                f"{called}: parameters.{name} is none of {config.use}; there are {', '.join(known) or 'none'}"
            )
    arguments: dict[str, object] = {}
    for name, parameter in known.items():
        if name in config.parameters:
            value = config.parameters[name]
            try:
                arguments[name] = TypeAdapter(hints.get(name, Any)).validate_python(value)
            except ValidationError as error:
                said = error.errors(include_url=False)[0]["msg"]
                raise HandlerError(f"{called}: parameters.{name}: {said}, got {value!r:.120}") from error
        elif parameter.default is parameter.empty:
            raise HandlerError(f"{called}: parameters.{name} is missing: give it")
    return arguments
