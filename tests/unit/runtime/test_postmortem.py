"""What a dossier is made of: why the plugin ended, what was seen then, what it cost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sandbox_host.backends.base import Exit
from sandbox_host.budget.enforce import BACKGROUND, Excess, Step
from sandbox_host.ipc.calls import Pending
from sandbox_host.model import Cause, Enforced, Layer, LayerReport, LayerStatus, Receipt, Usage
from sandbox_host.observe.curve import Point
from sandbox_host.observe.dossier import Dossier, Exceeded, FrameHeader
from sandbox_host.runtime.causes import Ending
from sandbox_host.runtime.life import Life
from sandbox_host.runtime.postmortem import Remains, dossier_of

FRAMES = (FrameHeader(0.5, "out", "call", 3, 9, "predict"),)
CURVE = (Point(0.1, 0.2, 300, 4, 5),)
LIMITS = (Enforced("threads", "64", "watchdog"),)
REMAINS = Remains(Exit(None, 9), 1_000.0, 2.5, FRAMES, "predict")


def plan() -> Any:
    manifest = SimpleNamespace(version="1.2.3")
    return SimpleNamespace(identity="sample", manifest=manifest, root_digest="ab" * 32)


def receipt() -> Receipt:
    layers = (
        LayerReport(Layer.SECCOMP, LayerStatus.ACTIVE, "seen"),
        LayerReport(Layer.CGROUP, LayerStatus.UNAVAILABLE, "none"),
        LayerReport(Layer.WATCHDOG, LayerStatus.ACTIVE, "seen"),
    )
    return Receipt("sample", 4711, layers, (), LIMITS)


def life(ending: Ending | None, how: Exit, offender: Pending | None = None) -> Life:
    """Return the life of a plugin that was ready and has ended."""
    made = Life("sample", 86_400)
    made.ready()
    if ending is not None:
        made.condemn(ending, 0.0, offender)
    made.ended(how)
    return made


def dossier(ending: Ending | None = None, how: Exit = REMAINS.how, **more: Any) -> Dossier | None:
    return dossier_of(
        plan(),
        receipt(),
        life(ending, how, more.get("offender")),
        more.get("remains", Remains(how, 1_000.0, 2.5, FRAMES, "predict")),
        usage=Usage(cpu_seconds=1.5),
        curve=CURVE,
        log=["first", "last"],
        stacks="stacks",
        place="main.py:7 in predict",
    )


def excess(operation: str = "predict", *, held: bool = False) -> Ending:
    of = Excess(Step.END, Cause.MEMORY, "memory", 64.0, 65.0, "bytes", operation, held=held)
    return Ending(Cause.MEMORY, "too much", of)


def test_what_was_seen_is_told() -> None:
    made = dossier(how=Exit(3, None))
    assert made == Dossier(
        plugin="sample",
        version="1.2.3",
        root_digest="ab" * 32,
        pid=4711,
        cause=Cause.EXITED,
        text="sample left by itself with exit status 3.",
        started_at=997.5,
        ended_at=1_000.0,
        operation="predict",
        place="main.py:7 in predict",
        exit_code=3,
        usage=Usage(cpu_seconds=1.5),
        limits=LIMITS,
        layers=(Layer.SECCOMP, Layer.WATCHDOG),
        curve=CURVE,
        frames=FRAMES,
        log=("first", "last"),
        stacks="stacks",
    )


@pytest.mark.parametrize("cause", [Cause.UNLOADED, Cause.HOST_SHUTDOWN], ids=str)
def test_of_who_ended_as_asked_there_is_none(cause: Cause) -> None:
    assert dossier(Ending(cause, "as asked")) is None


def test_of_who_left_as_asked_there_is_none() -> None:
    left = Life("sample", 86_400)
    left.ready()
    left.drain()
    left.ended(Exit(0, None))
    nothing: Any = {"usage": Usage(), "curve": (), "log": (), "stacks": "", "place": ""}
    assert dossier_of(plan(), receipt(), left, REMAINS, **nothing) is None


@pytest.mark.parametrize("held", [False, True])
def test_an_excess(held: bool) -> None:
    made = dossier(excess(held=held))
    assert made is not None
    assert (made.cause, made.text) == (Cause.MEMORY, "too much")
    assert made.excess == Exceeded("memory", 64.0, 65.0, "bytes")
    assert made.exit_signal == 9
    assert made.frozen is held


@pytest.mark.parametrize(
    ("of", "offender", "told"),
    [
        ("train", None, "train"),
        ("train", "predict", "train"),
        (BACKGROUND, None, BACKGROUND),
        ("", "train", "train"),
        ("", None, ""),
    ],
)
def test_what_an_excess_is_blamed_on(of: str, offender: str | None, told: str) -> None:
    """What it worked on last is not blamed for what was found while nothing was asked."""
    blamed = Pending(1, offender, 1.0, 0.0) if offender else None
    made = dossier(excess(of), offender=blamed)
    assert made is not None
    assert made.operation == told
