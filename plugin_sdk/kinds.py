"""What a plugin offers: operations, and the kinds of object whose methods are operations.

A plugin uses a kind by deriving from it and making one object at module level::

    class WeatherModel(Model):
        def predict(self, rows): ...

    model = WeatherModel()

Those methods of the kind that the class overrides can be called from the host, and so can every
method and every function that is marked with `operation`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, TypeVar

    Function = TypeVar("Function", bound=Callable[..., Any])

OPERATION = "__plugin_operation__"
"""Attribute that `operation` leaves on a function: the operation's name."""


def operation(function: Function | str) -> Any:
    """Mark a function or method as callable from the host, under its own name or another.

    Use it bare, ``@operation``, or with a name, ``@operation("forecast")``. Arguments and the
    result are plain values: None, bool, int, float, str, bytes, list, dict with str keys.

    Raises:
        TypeError: what it stands on is not a function or method.
        ValueError: the name is not an identifier.
    """
    if isinstance(function, str):
        name = function
        if not name.isidentifier():
            text = f"{name!r:.80} is not a name for an operation; use an identifier"
            raise ValueError(text)
        return lambda target: _mark(target, name)
    return _mark(function, getattr(function, "__name__", ""))


def _mark(function: Any, name: str) -> Any:
    target = getattr(function, "__func__", function)
    if isinstance(target, type) or not callable(target) or not name.isidentifier():
        text = (
            f"@operation stands on {function!r:.80}; put it on a named function or method, "
            "above `def`"
        )
        raise TypeError(text)
    setattr(target, OPERATION, name)
    return function


class Kind:
    """Base of the kinds. Plugins derive from `Model`, `DataSource` or `Pipeline`.

    Which arguments a method takes is the plugin's affair: any signature overrides these.
    """

    OPERATIONS: ClassVar[tuple[str, ...]] = ()
    """Methods of this kind that become operations when a subclass overrides them."""

    def _not_offered(self, name: str) -> NotImplementedError:
        return NotImplementedError(f"{type(self).__name__} does not define {name}()")


class Model(Kind):
    """An AI model."""

    OPERATIONS = ("predict", "train", "evaluate")

    def predict(self, *_args: Any, **_kwargs: Any) -> Any:
        """Return the model's answer to its input."""
        raise self._not_offered("predict")

    def train(self, *_args: Any, **_kwargs: Any) -> Any:
        """Learn from data; return what the caller should know, such as the loss."""
        raise self._not_offered("train")

    def evaluate(self, *_args: Any, **_kwargs: Any) -> Any:
        """Return how good the model is on data: a number, or a dict of numbers."""
        raise self._not_offered("evaluate")


class DataSource(Kind):
    """Something that data is read from and written to."""

    OPERATIONS = ("connect", "disconnect", "read", "write")

    def connect(self, *_args: Any, **_kwargs: Any) -> Any:
        """Open the source."""
        raise self._not_offered("connect")

    def disconnect(self, *_args: Any, **_kwargs: Any) -> Any:
        """Close the source."""
        raise self._not_offered("disconnect")

    def read(self, *_args: Any, **_kwargs: Any) -> Any:
        """Return what a query asks for."""
        raise self._not_offered("read")

    def write(self, *_args: Any, **_kwargs: Any) -> Any:
        """Store data."""
        raise self._not_offered("write")


class Pipeline(Kind):
    """Data passed through named stages, in order.

    ``stages`` may also be a plain list on the object; the operation then returns its names.
    """

    OPERATIONS = ("stages", "add_stage", "process")

    def stages(self, *_args: Any, **_kwargs: Any) -> Any:
        """Return the names of the stages, in order."""
        raise self._not_offered("stages")

    def add_stage(self, *_args: Any, **_kwargs: Any) -> Any:
        """Add a stage, given by its name or a description: no function crosses the pipe."""
        raise self._not_offered("add_stage")

    def process(self, *_args: Any, **_kwargs: Any) -> Any:
        """Return data after all stages."""
        raise self._not_offered("process")


KINDS: tuple[type[Kind], ...] = (Model, DataSource, Pipeline)
