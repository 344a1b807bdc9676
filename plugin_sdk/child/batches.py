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

_NO_VALUE = "it yields; only operations that return values can be called in batches"


def batch_of(operation: Operation, describe: Describe) -> Operation:
    """Return a function that takes ``[args, kwargs]`` pairs and returns what became of each.

    That is ``[True, value]`` or ``[False, details]``. One that fails does not stop the others; a
    deadline or a cancellation ends all of them.

    Args:
        operation: what is called.
        describe: returns the details of what it raised.
    """
    if is_async(operation):
        return _async_batch_of(operation, describe)

    def run(pairs: list[Any]) -> list[Any]:
        outcomes = []
        for arguments, keywords in pairs:
            try:
                outcomes.append([True, _plain(operation(*arguments, **keywords))])
            except (DeadlinePassed, Cancelled):
                raise
            except BaseException as error:  # noqa: BLE001 - sys.exit() in an operation ends nothing
                outcomes.append([False, describe(error)])
        return outcomes

    return run


def _async_batch_of(operation: Operation, describe: Describe) -> Operation:
    async def run(pairs: list[Any]) -> list[Any]:
        outcomes = []
        for arguments, keywords in pairs:
            try:
                value = operation(*arguments, **keywords)
                value = await value if hasattr(type(value), "__await__") else value
                outcomes.append([True, _plain(value)])
            except (DeadlinePassed, Cancelled):
                raise
            except BaseException as error:
                if type(error).__name__ == "CancelledError":
                    raise
                outcomes.append([False, describe(error)])
        return outcomes

    return run


def are_pairs(value: Any) -> bool:
    """Tell whether a value is a list of ``[args, kwargs]`` pairs."""
    return all(
        isinstance(pair, list)
        and len(pair) == 2  # noqa: PLR2004 - a pair
        and isinstance(pair[0], list)
        and isinstance(pair[1], dict)
        for pair in value
    )


def _plain(value: Any) -> Any:
    kind = type(value)
    if any(hasattr(kind, name) for name in ("__next__", "__anext__", "__await__")):
        close = getattr(value, "close", None)
        if close is not None:
            close()
        raise TypeError(_NO_VALUE)
    return value
