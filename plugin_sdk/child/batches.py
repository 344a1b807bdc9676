"""Many calls of one operation in one message: what each of them came to, in their order."""

from __future__ import annotations

from plugin_sdk.child.interface import is_async
from plugin_sdk.errors import Cancelled, DeadlinePassed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from plugin_sdk.child.interface import Operation

    Describe = Callable[[BaseException], dict[str, Any]]

PLAIN = frozenset({type(None), bool, int, float, str, bytes, list, dict})
"""What is neither waited for nor sent piece by piece; most operations return one of these."""

_NO_VALUE = "it yields; only operations that return values can be called in batches"


def batch_of(operation: Operation, describe: Describe) -> Operation:
    """Return a function that takes calls, each a list of arguments or a dict of keywords.

    It returns ``[values, failures]``: a value for each, None where one failed, and ``[number,
    details]`` of each that did. One that fails does not stop the others; a deadline or a
    cancellation ends all of them.

    Args:
        operation: what is called.
        describe: returns the details of what it raised.
    """
    if is_async(operation):
        return _async_batch_of(operation, describe)

    def run(calls: list[Any]) -> list[Any]:
        values: list[Any] = []
        failures: list[Any] = []
        for one in calls:
            try:
                value = operation(*one) if type(one) is list else operation(**one)
                if type(value) not in PLAIN:
                    _check(value)
            except (DeadlinePassed, Cancelled):
                raise
            except BaseException as error:  # noqa: BLE001 - sys.exit() in an operation ends nothing
                failures.append([len(values), describe(error)])
                value = None
            values.append(value)
        return [values, failures]

    return run


def _async_batch_of(operation: Operation, describe: Describe) -> Operation:
    async def run(calls: list[Any]) -> list[Any]:
        values: list[Any] = []
        failures: list[Any] = []
        for one in calls:
            try:
                value = operation(*one) if type(one) is list else operation(**one)
                if type(value) not in PLAIN:
                    value = await value if hasattr(type(value), "__await__") else value
                    _check(value)
            except (DeadlinePassed, Cancelled):
                raise
            except BaseException as error:
                if type(error).__name__ == "CancelledError":
                    raise
                failures.append([len(values), describe(error)])
                value = None
            values.append(value)
        return [values, failures]

    return run


def are_calls(value: list[Any]) -> bool:
    """Tell whether a list has calls, each the list of its arguments or the dict of its keywords."""
    return {list, dict}.issuperset(map(type, value))


def _check(value: Any) -> None:
    kind = type(value)
    if any(hasattr(kind, name) for name in ("__next__", "__anext__", "__await__")):
        close = getattr(value, "close", None)
        if close is not None:
            close()
        raise TypeError(_NO_VALUE)
