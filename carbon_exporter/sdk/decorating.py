"""Decorating: a function each call of which is a lap of a span."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from carbon_exporter.sdk.span import CarbonSpan

__all__ = ["measured"]

F = TypeVar("F", bound=Callable[..., Any])


def measured(span: CarbonSpan, function: F) -> F:
    """The function, measured. Raises `TypeError` for a class, a generator, or what is not to be called."""
    plain = inspect.unwrap(function) if callable(function) else function
    if not callable(function) or inspect.isclass(function):
        raise TypeError(f"carbon_span({span.name!r}) decorates functions, not {function!r}")
    if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        raise TypeError(
            f"carbon_span({span.name!r}) does not decorate a generator, which runs in pieces: "
            f"write `with carbon_span({span.name!r}):` around its body, or around the loop over it"
        )
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def waits(*args: Any, **kwargs: Any) -> Any:
            with span:
                return await function(*args, **kwargs)

        return cast("F", waits)

    @functools.wraps(function)
    def runs(*args: Any, **kwargs: Any) -> Any:
        with span:
            return function(*args, **kwargs)

    return cast("F", runs)
