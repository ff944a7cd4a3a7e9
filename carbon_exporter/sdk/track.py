"""`@track`: a function each call of which is a run."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast, overload

from carbon_exporter.sdk.run import CarbonRun

__all__ = ["track"]

F = TypeVar("F", bound=Callable[..., Any])


@overload
def track(function: F, /) -> F: ...


@overload
def track(function: str = "", /, **options: Any) -> Callable[[F], F]: ...


def track(function: F | str = "", /, **options: Any) -> F | Callable[[F], F]:
    """Measure each call as a `CarbonRun`: `@track`, `@track("name")` or `@track(model="resnet50", budget="2 kWh")`.

    `options` are those of `CarbonRun`. Inside, `CarbonRun.current()` is the run. What the function raises goes on as it
    is; a function may be plain or async.

    Raises:
        TypeError: it is a class or a generator, which runs in pieces.
        ConfigError: an option that cannot be.
    """
    if callable(function):
        return _tracked(function, "", options)
    name = str(function)
    CarbonRun(name, **options)  # what cannot be is said where it stands, not at the first call
    return lambda decorated: _tracked(decorated, name, options)


def _tracked(function: F, name: str, options: dict[str, Any]) -> F:
    plain = inspect.unwrap(function)
    if inspect.isclass(function) or inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        raise TypeError(f"@track measures functions, not {function!r}: write `with CarbonRun():` around the loop")
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def waits(*args: Any, **kwargs: Any) -> Any:
            async with CarbonRun(name, **options):
                return await function(*args, **kwargs)

        return cast("F", waits)

    @functools.wraps(function)
    def runs(*args: Any, **kwargs: Any) -> Any:
        with CarbonRun(name, **options):
            return function(*args, **kwargs)

    return cast("F", runs)
