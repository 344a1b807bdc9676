"""What to do about a plugin that ended: a table by cause, as short as it can be acted on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sandbox_host.model import Cause
from sandbox_host.terms import LIMIT_KEYS

_RAISE: Final = (
    'If it really needs more: raise "limits": {{"{key}": …}} in its plugin.json and sign it again; '
    "the operator's ceiling is {key} in [limits] of the host's TOML."
)
_RAISE_OPERATORS: Final = (
    "If it really needs more: raise {key} in [limits] of the host's TOML; it is the operator's "
    "alone."
)
_LOG: Final = (
    "Read the last log lines, and the whole log: logs/{plugin}.log in the state directory."
)
_REVOKE: Final = (
    "Until that is clear, `sandbox-host trust revoke --bundle DIGEST` refuses this bundle for good."
)
_RELOAD: Final = "The host and the other plugins go on; load {plugin} again when it is mended."

_ADVICE: Final[Mapping[Cause, tuple[str, ...]]] = {
    Cause.UNLOADED: ("Nothing: it was unloaded.",),
    Cause.HOST_SHUTDOWN: ("Nothing: the host was closed.",),
    Cause.MEMORY: (
        "Look at the curve: memory that grows with every call is a leak, a jump one large object.",
        "Let {operation} work in smaller pieces, and let go of what it does not need any more.",
        "{raise_}",
    ),
    Cause.CPU: (
        "Look at the place and the stacks: a loop without an end, or simply much to compute?",
        "Let {operation} do less at once, or stop its background threads in cleanup().",
        "{raise_}",
    ),
    Cause.DEADLINE: (
        "If the CPU time in the curve stands still, {operation} waited; if not, it computed.",
        "Let it catch DeadlinePassed and stop: who ends an operation by itself is not ended.",
        "Give the call more time (deadline=). {raise_}",
    ),
    Cause.CANCELLED: (
        "Let {operation} catch Cancelled only to clean up, and end within a quarter of a second.",
        "If it waited in C code, which no exception ends: let it wait for short times, in a loop.",
        _RELOAD,
    ),
    Cause.UNRESPONSIVE: (
        "The stacks show where it stood when it was ended: look there for what it waits for.",
        "Let health_check() answer at once: it reports what is known, and asks nobody.",
        "If it needs longer for good reasons, raise health_check_timeout.",
    ),
    Cause.THREADS: (
        "Look at the stacks for who starts threads, and use one pool of a fixed size.",
        "{raise_}",
    ),
    Cause.DISK: (
        (
            "Look at data/{plugin} in the state directory (`sandbox-host data list` measures it), "
            "and remove what is not needed there: while there is too much, it is ended again."
        ),
        "Let the plugin remove old files itself.",
        "{raise_}",
    ),
    Cause.NETWORK: (
        "Compare `usage().connections` with what its calls should need: does it ask too often?",
        "Let {operation} ask for less at once, and keep what does not change among its data.",
        "{raise_}",
    ),
    Cause.PROTOCOL_VIOLATION: (
        "With plugin_sdk as it is no plugin does this: suspect it, and ask whoever signed it.",
        _REVOKE,
        "The last messages show after what it broke off.",
    ),
    Cause.SYSCALL: (
        (
            "Only calls of another ABI (x32, 32-bit) end a process, all others get an error, and "
            "no library for this machine makes them: suspect it, and ask whoever signed it."
        ),
        _REVOKE,
        (
            "There are no stacks, for the kernel ends it at once: the operation and the last log "
            "lines show what it did."
        ),
    ),
    Cause.CRASHED: (
        "Native code failed: the stacks, if there are any, name the call into it.",
        "Run it outside with `python -X faulthandler`, and with another version of the library.",
        _RELOAD,
    ),
    Cause.EXITED: (
        (
            "It called os._exit(), or a library of it did: look for that in its code; sys.exit() "
            "in an operation is only an error."
        ),
        _LOG,
        _RELOAD,
    ),
    Cause.KILLED: (
        "This host did not do it: ask who else may send signals here.",
        "Look in the machine's log, `journalctl -k`, for the kernel's out-of-memory killer.",
        "If the machine ran out of memory, lower [limits] memory, or run fewer plugins at once.",
        _RELOAD,
    ),
    Cause.START_FAILED: (
        "Try it alone: `sandbox-host check DIR` loads it in the sandbox and shows its traceback.",
        _LOG,
        "If it was slow, do less at import and in init_plugin(), or raise start_timeout_seconds.",
    ),
    Cause.UNKNOWN: (
        "Look at what the host's log and journal, and `journalctl -k`, say of this time.",
        "`sandbox-host doctor` shows whether this machine still offers what plugins need.",
        "If the host was at fault, report it with this dossier.",
    ),
}

_KEY_OF_CAUSE: Final[Mapping[Cause, str]] = {
    Cause.MEMORY: "memory",
    Cause.CPU: "cpu_total",  # the kernel's own: every other one is ended with its excess
    Cause.DEADLINE: "wall_time",
    Cause.THREADS: "threads",
    Cause.DISK: "data",
    Cause.NETWORK: "network_bytes_per_minute",
}
_KEY_OF_BUDGET: Final[Mapping[str, str]] = {
    "cpu": "cpu_time",
    "cpu_per_minute": "cpu_time_per_minute",
    **{name: key.key for key in LIMIT_KEYS for name in (key.field, key.key)},
}
_OPERATORS: Final = frozenset(key.key for key in LIMIT_KEYS if key.operator_only)


def limit_key(budget: str, cause: Cause | None = None) -> str:
    """Return how plugin.json and ``[limits]`` call a budget; "" where they do not name it.

    Args:
        budget: as in `BudgetExceededError.budget`, or a field of `Limits`; "" if none is known.
        cause: whose usual budget it is then.
    """
    if budget or cause is None:
        return _KEY_OF_BUDGET.get(budget, "")
    return _KEY_OF_CAUSE.get(cause, "")


def what_next(
    cause: Cause, *, plugin: str, operation: str = "", budget: str = ""
) -> tuple[str, ...]:
    """Return what to do next, in sentences; the first is the most likely to help.

    Args:
        cause: why the plugin ended; one that the table does not have counts as unknown.
        plugin: its identity.
        operation: what it worked on, if anything.
        budget: which one was exceeded, if any.
    """
    key = limit_key(budget, cause)
    raise_ = ""
    if key:
        raise_ = (_RAISE_OPERATORS if key in _OPERATORS else _RAISE).format(key=key)
    told = (
        text.format(plugin=plugin, operation=operation or "the plugin", raise_=raise_)
        for text in _ADVICE.get(cause, _ADVICE[Cause.UNKNOWN])
    )
    return tuple(text.strip() for text in told if text.strip())
