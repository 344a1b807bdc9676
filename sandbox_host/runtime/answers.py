"""Turns what a plugin answered into a value or a typed error. Its text is shown, never obeyed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError, PayloadTooLargeError
from plugin_sdk.wire.limits import RECEIVED
from plugin_sdk.wire.message import Message
from plugin_sdk.wire.messages import Failure, Result
from sandbox_host.admission.explanations import explained, read_report
from sandbox_host.errors import (
    BackpressureError,
    BudgetExceededError,
    CallCancelledError,
    DeadlineExceededError,
    MessageTooLargeError,
    NoSuchOperationError,
    NotAStreamError,
    NotSerializableError,
    OperationError,
    PluginEndedError,
    PluginError,
)
from sandbox_host.ipc.channel import SESSION_ID
from sandbox_host.model import Cause, State
from sandbox_host.reading import escaped, sentence, shown_amount, shown_bytes

if TYPE_CHECKING:
    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.backends.base import Sample
    from sandbox_host.budget.enforce import Excess
    from sandbox_host.ipc.calls import Pending
    from sandbox_host.model import Denial, Permissions

_MAX_MESSAGE: Final = 2_000
_MAX_TRACEBACK: Final = 16_000
_MAX_PLACE: Final = 300


class BadAnswerError(Exception):
    """The payload is not what the protocol says: the plugin is to be ended."""


def clean(value: object, limit: int, *, keep: str = "") -> str:
    r"""Return text from a plugin as it may be shown: bounded, control characters escaped.

    A terminal obeys escape sequences and a log believes line breaks; ``keep`` names characters
    that pass all the same, such as "\\n" in a traceback.
    """
    text = value if isinstance(value, str) else ""
    return escaped(text, limit, keep=keep, keep_end=True)


def value_of(plan: SandboxPlan, pending: Pending, answer: Message, sample: Sample | None) -> Any:
    """Return the value of an answered call.

    Args:
        plan: the plugin's.
        pending: the call.
        answer: what came.
        sample: what the host saw of the process when a failure came, or None.

    Raises:
        PluginError: the operation failed; the class says how.
        BadAnswerError: the answer breaks the protocol.
    """
    plugin, operation = plan.identity, pending.operation
    try:
        payload = codec.unpack(answer.payload, RECEIVED)
    except PayloadTooLargeError as error:
        text = f"The result of {plugin}.{operation} is too large for the host: {error}."
        remedy = "Return fewer elements, or bytes instead of lists of numbers."
        raise MessageTooLargeError(text, plugin=plugin, remedy=remedy) from None
    except PayloadError as error:
        raise BadAnswerError(str(error)) from None
    if isinstance(answer, Result):
        return payload
    if not isinstance(answer, Failure) or not isinstance(payload, dict):
        text = f"{type(answer).__name__} is no answer to a call"
        raise BadAnswerError(text)
    failure = _failure(plan, pending, answer.code, payload, sample)
    if isinstance(failure, OperationError) and pending.finished_at > pending.deadline:
        # Often it failed for that: what it waited for was given up at the same moment. Which of the
        # two is noticed first must not decide what the caller is told.
        late = too_late(plugin, pending, pending.finished_at, ended=False, waited=False)
        raise late from failure
    raise failure


def outcomes_of(plan: SandboxPlan, pending: Pending, value: Any, count: int) -> list[Any]:
    """Return what a batch came to: for each of its calls the value, or the error as an exception.

    Args:
        plan: the plugin's.
        pending: the batch.
        value: what the plugin returned for it.
        count: how many calls it had.

    Raises:
        BadAnswerError: the answer breaks the protocol.
    """
    match value:
        case [list() as outcomes, list() as failures] if len(outcomes) == count:
            pass
        case _:
            text = f"the answer to a batch is no list of {count} values and one of failures"
            raise BadAnswerError(text)
    last = -1
    for one in failures:
        match one:
            case [int() as number, dict() as told] if last < number < count and number is not True:
                code = told.get("code")
                code = code if isinstance(code, str) else ""
                outcomes[number] = _failure(plan, pending, code, told, None)
                last = number
            case _:
                text = "a failure in a batch is not told with its number"
                raise BadAnswerError(text)
    return outcomes


def _failure(
    plan: SandboxPlan, pending: Pending, code: str, told: dict[str, Any], sample: Sample | None
) -> PluginError:
    """Return the error for a failure that the plugin reported with ``code``."""
    plugin, what = plan.identity, named(plan.identity, pending)
    message = clean(told.get("message"), _MAX_MESSAGE)
    place = clean(told.get("place"), _MAX_PLACE)
    at = f" at {place}" if place else ""
    if code in _SIMPLE:
        return _SIMPLE[code](f"{plugin}: {message}.", plugin=plugin)
    if code in {"deadline-passed", "interrupted"}:
        waited = code == "deadline-passed"
        now = pending.finished_at
        return too_late(plugin, pending, now, ended=False, place=place, waited=waited)
    if code == "cancelled":
        return cancelled(plugin, pending, place=place)
    if code == "descriptors":
        return BudgetExceededError(
            f"{what} ran out of file descriptors{at}: {plan.limits.descriptors} may be open.",
            plugin=plugin,
            budget=code,
            limit=plan.limits.descriptors,
            used=sample.descriptors if sample else None,
            unit="descriptors",
            place=place,
            ended=False,
            remedy='Close what is no longer needed, or raise "limits": {"descriptors": …}.',
        )
    if code == "memory":
        return BudgetExceededError(
            f"{what} ran out of memory{at}: the budget is {shown_bytes(plan.limits.memory_bytes)}.",
            plugin=plugin,
            budget=code,
            limit=plan.limits.memory_bytes,
            used=sample.resident_bytes if sample else None,
            unit="bytes",
            place=place,
            ended=False,
            remedy='Work in smaller pieces, or raise "limits": {"memory": …}.',
        )
    type_name = clean(told.get("type"), _MAX_PLACE)
    denial = denial_of(told, plan.permissions)
    traceback_text = clean(told.get("traceback"), _MAX_TRACEBACK, keep="\n\t")
    return OperationError(
        f"{what} raised {type_name or 'an error'}{at}: {sentence(message)}",
        plugin=plugin,
        remedy=advice_on(denial) if denial else hint(type_name, message, traceback_text),
        type_name=type_name,
        traceback_text=traceback_text,
        denial=denial,
    )


def denial_of(told: object, granted: Permissions) -> Denial | None:
    """Return what a failure that a plugin reported stands for, by its own word, or None."""
    report = read_report(told.get("denied")) if isinstance(told, dict) else None
    return None if report is None else explained(report, granted)


def advice_on(denial: Denial) -> str:
    """Return the same as the end of an error's text, with who says so."""
    text = f"{denial.text[:1].upper()}{denial.text[1:]}"
    return f"{sentence(text)} (By the word of the plugin's own process.)"


_SIMPLE: Final = {
    "no-such-operation": NoSuchOperationError,
    "not-serializable": NotSerializableError,
    "message-too-large": MessageTooLargeError,
}


START: Final = "the start"
CLEAN_UP: Final = "the clean-up"

_MORE_TIME: Final = {
    START: "Do less at import and in init_plugin(), or raise start_timeout_seconds.",
    CLEAN_UP: "Do less in cleanup(), or raise stop_timeout_seconds.",
    "": 'Give it more time (deadline=, at most "limits": {"wall_time": …}), or let it do less.',
}

_HINTS: Final = (
    ("ModuleNotFoundError", "", "Plugins import the standard library and the plugin environment."),
    ("gaierror", "", "There is no network in the sandbox."),
    ("URLError", "", "There is no network in the sandbox."),
    ("", "[Errno 30]", "Only the plugin's data_dir and scratch_dir can be written."),
    (
        "",
        "failed to map segment from shared object",
        'A shared object that the plugin brings or writes is loaded only with "native_code": true.',
    ),
    (
        "FileNotFoundError",
        "[Errno 2]",
        "A plugin has a root of its own: of this machine's files, only granted ones are there.",
    ),
    ("", "[Errno 27]", 'A file may be as large as "limits": {"file_size": …} says.'),
    (
        "PermissionError",
        "",
        "The sandbox gives a plugin its own directories, and no other files, programs or network.",
    ),
)
"""What a wall of the sandbox looks like from inside: type, part of the message, what it means."""

_PROCESSES: Final = ("multiprocessing", "subprocess.py", "concurrent/futures/process.py")
_ONE_PROCESS: Final = (
    "A plugin is one process and starts no other, unless it has the permission subprocess, and "
    "then no program but its own interpreter, sys.executable. Threads (numpy computes in parallel "
    "in them) or several plugins do without."
)


def hint(type_name: str, message: str, traceback_text: str = "") -> str:
    """Return what an exception inside may have to do with the sandbox; "" where nothing."""
    kind = type_name.rpartition(".")[2]
    if kind.endswith(("PermissionError", "FileNotFoundError")) and any(
        f'{module}"' in traceback_text or f"/{module}/" in traceback_text for module in _PROCESSES
    ):
        return _ONE_PROCESS
    for kind, part, text in _HINTS:
        if type_name.rpartition(".")[2].endswith(kind) and part in message:
            return text
    return ""


def named(plugin: str, pending: Pending) -> str:
    """Return what was asked for, as errors call it: "p.predict", or "the start of p"."""
    if pending.id == SESSION_ID:
        return f"{pending.operation} of {plugin}"
    return f"{plugin}.{pending.operation}"


_TOO_MUCH: Final = (
    ", because it sent or printed more than messages_per_second, message_bytes_per_second or "
    "log_bytes_per_second allow."
)


def too_late(
    plugin: str,
    pending: Pending,
    now: float,
    *,
    ended: bool,
    place: str = "",
    waited: bool | None = None,
) -> DeadlineExceededError:
    """Return the error of a call that missed its deadline.

    Args:
        plugin: the plugin's identity.
        pending: the call.
        now: reading of the monotonic clock.
        ended: the plugin was ended for it.
        place: where it stood, as far as is known.
        waited: it never ran; None looks at whether it was started.
    """
    never_ran = not pending.started_at if waited is None else waited
    why = "waited for its turn" if never_ran else "took too long"
    at = f" at {place}" if place else ""
    end = "its plugin was ended" if ended else "the plugin goes on"
    allowed = pending.deadline - pending.waiting_since
    missed = f"missed its deadline of {allowed:.3g} s"
    held = f" It was held back for {pending.held_seconds:.3g} s{_TOO_MUCH}"
    return DeadlineExceededError(
        f"{named(plugin, pending)} {why}{at} and {missed}; {end}."
        f"{held if pending.held_seconds else ''}",
        plugin=plugin,
        budget="wall_time",
        limit=allowed,
        used=now - pending.waiting_since,
        unit="seconds",
        place=place,
        ended=ended,
        remedy=_MORE_TIME.get(pending.operation, _MORE_TIME[""]),
    )


def exceeded(
    plugin: str, pending: Pending, excess: Excess, place: str, now: float, *, ended: bool = True
) -> BudgetExceededError | CallCancelledError:
    """Return the error of the call whose plugin was ended for an excess.

    Args:
        plugin: the plugin's identity.
        pending: the call.
        excess: what was exceeded.
        place: where it stood, as far as is known.
        now: reading of the monotonic clock.
        ended: its process has been seen to end.
    """
    if excess.cause is Cause.DEADLINE:
        return too_late(plugin, pending, now, ended=ended, place=place)
    if excess.cause is Cause.CANCELLED:
        return cancelled(plugin, pending, place=place, ended=True)
    at = f" at {place}" if place else ""
    where = (
        'Raise "limits" in plugin.json' if pending.limits is None else "Give it more with limits="
    )
    return BudgetExceededError(
        f"{named(plugin, pending)} exceeded the budget {excess.budget}{at}: "
        f"{_measure(excess)}; {'its plugin was ended' if ended else 'its process may live on'}.",
        plugin=plugin,
        budget=excess.budget,
        limit=excess.limit,
        used=excess.used,
        unit=excess.unit,
        place=place,
        ended=ended,
        remedy=f"{where}, or find out why {pending.operation} needs so much.",
    )


def cancelled(
    plugin: str, pending: Pending, *, place: str = "", ended: bool = False
) -> CallCancelledError:
    """Return the error of a call that was cancelled.

    Args:
        plugin: the plugin's identity.
        pending: the call.
        place: where it stood, as far as is known.
        ended: the plugin went on all the same, and was ended for it.
    """
    at = f" at {place}" if place else ""
    end = "; its plugin went on, and was ended" if ended else ""
    text = f"{named(plugin, pending)} was cancelled{at}{end}."
    remedy = "Let it catch Cancelled only to clean up." if ended else ""
    return CallCancelledError(text, plugin=plugin, ended=ended, remedy=remedy)


def no_stream(plugin: str, pending: Pending, *, yields: bool) -> NotAStreamError:
    """Return the error of a call that is read as what it is not.

    Args:
        plugin: the plugin's identity.
        pending: the call.
        yields: it yields, and its caller wants a value.
    """
    what = named(plugin, pending)
    if yields:
        text, remedy = f"{what} yields a stream.", f'Read it: `stream("{pending.operation}", ...)`.'
    else:
        text, remedy = f"{what} returns a value.", f'Call it: `call("{pending.operation}", ...)`.'
    return NotAStreamError(text, plugin=plugin, remedy=remedy)


def told_to_operator(plugin: str, excess: Excess) -> str:
    """Return one sentence on an excess, for the log and the journal."""
    where = f" in {excess.operation}" if excess.operation else ""
    if excess.cause is Cause.CANCELLED:
        return f"{plugin} went on{where} for {excess.used:.3g} s after that was cancelled."
    return f"{plugin} exceeded its budget {excess.budget}{where}: {_measure(excess)}."


def _measure(excess: Excess) -> str:
    used, limit = (shown_amount(value, excess.unit) for value in (excess.used, excess.limit))
    return f"{used} of {limit}"


def too_much(plugin: str, outstanding: int) -> BackpressureError:
    """Return the error of a call for which there is no room."""
    text = f"{plugin} has {outstanding} calls and deliveries outstanding and takes no more now."
    remedy = "Wait for answers before you send more."
    return BackpressureError(text, plugin=plugin, remedy=remedy)


def not_running(plugin: str, state: State, cause: Cause | None, why: str) -> PluginEndedError:
    """Return the error of a call to a plugin that takes none."""
    if cause is None:
        text = f"{plugin} is {state} and takes no calls."
        return PluginEndedError(text, plugin=plugin, cause=Cause.UNLOADED)
    text = f"{plugin} is not running: {why}"
    return PluginEndedError(text, plugin=plugin, cause=cause, remedy="Load it again.")


def unanswered(plugin: str, pending: Pending, cause: Cause, why: str) -> PluginEndedError:
    """Return the error of a call that will not be answered any more."""
    text = f"{named(plugin, pending)} was not answered: {why}"
    return PluginEndedError(text, plugin=plugin, cause=cause, remedy="Load it again.")
