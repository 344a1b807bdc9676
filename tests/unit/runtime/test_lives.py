"""Every step of a life is one event and one line; what comes too late has not happened."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.errors import AdmissionError, HeldError, StartError
from sandbox_host.runtime.lives import MAX_ENDED, Lives
from sandbox_host.supervision.lifecycle import ENDS, FIRST, TABLE, PluginState, Trigger

P, T = PluginState, Trigger


class Told:
    """Lives, with what was written and published of them."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, str]] = []
        self.events: list[dict[str, str]] = []
        self.lives = Lives(lambda *line: self.lines.append(line), self.events.append)

    def state(self, name: str = "a") -> PluginState | None:
        life = self.lives.of(name)
        return None if life is None else life.state

    def start(self, name: str = "a", error: BaseException | None = None, steps: int = 3) -> None:
        try:
            with self.lives.arrive() as arrival:
                if steps > 0:
                    arrival.verified(name, "d1")
                if steps > 1:
                    arrival.starting()
                if error is not None:
                    raise error
                arrival.ready()
        except type(error or OSError):
            pass


@pytest.fixture
def told() -> Told:
    return Told()


def test_a_start(told: Told) -> None:
    told.start()
    assert told.state() is P.RUNNING
    # Whoever admits, and whoever knows what confines it, writes those lines.
    assert told.lines == [("verified", "a", "root d1"), ("starting", "a", "")]
    assert [one["after"] for one in told.events] == ["verified", "admitted", "starting", "running"]
    assert told.events[0] == {
        "plugin": "a",
        "before": "discovered",
        "step": "verify",
        "after": "verified",
        "reason": "root d1",
    }


@pytest.mark.parametrize(
    ("error", "steps", "state", "lines"),
    [
        pytest.param(AdmissionError("no"), 0, None, [], id="nobody-knows-whose"),
        pytest.param(AdmissionError("no"), 1, P.FAILED, ["verified"], id="refused"),
        pytest.param(
            HeldError("more", plugin="a", changes=()), 1, P.HELD, ["verified", "held"], id="held"
        ),
        pytest.param(
            StartError("no", plugin="a"), 2, P.FAILED, ["verified", "starting"], id="failed"
        ),
        pytest.param(KeyboardInterrupt(), 2, P.FAILED, ["verified", "starting"], id="interrupted"),
    ],
)
def test_a_start_that_fails(
    told: Told, error: BaseException, steps: int, state: PluginState | None, lines: list[str]
) -> None:
    told.start(error=error, steps=steps)
    assert told.state() is state
    assert [event for event, *_ in told.lines] == lines
    told.start()
    assert told.state() is P.RUNNING


def test_one_start_at_a_time_counts(told: Told) -> None:
    with told.lives.arrive() as first:
        first.verified("a", "d1")
        told.start(error=AdmissionError("another version"), steps=1)
        assert told.state() is P.VERIFIED
        first.starting()
        first.ready()
    told.start(error=AdmissionError("loaded already"), steps=1)
    assert told.state() is P.RUNNING


def test_after_a_crash(told: Told) -> None:
    told.start()
    for trigger in (T.FAIL, T.BACK_OFF, T.RENEW):
        assert told.lives.step("a", trigger)
    told.start()
    assert [line[0] for line in told.lines[2:]] == [
        *("failed", "restart_due", "discovered"),
        *("verified", "starting"),
    ]


@pytest.mark.parametrize(
    ("way", "line"),
    [((T.QUARANTINE,), "released"), ((T.DISABLE,), "enabled"), ((T.BACK_OFF,), "discovered")],
    ids=["quarantined", "disabled", "backing-off"],
)
def test_a_load_leads_out_of_everything(told: Told, way: tuple[Trigger, ...], line: str) -> None:
    told.start()
    for trigger in (T.FAIL, *way):
        assert told.lives.step("a", trigger)
    told.start()
    assert told.state() is P.RUNNING
    assert told.lines[-3][0] == line


def test_what_comes_too_late_has_not_happened(told: Told) -> None:
    told.start()
    assert told.lives.step("a", T.STOP)
    count = len(told.events)
    assert not told.lives.step("a", T.WORSEN)
    assert not told.lives.step("a", T.BACK_OFF)
    assert len(told.events) == count
    assert told.lives.step("a", T.FAIL, "it crashed")
    assert told.state() is P.STOPPED


@pytest.mark.parametrize("trigger", [None, T.WORSEN, T.FAIL])
def test_a_new_version_in_its_place(told: Told, trigger: Trigger | None) -> None:
    told.start()
    if trigger is not None:
        assert told.lives.step("a", trigger)
    count = len(told.events)
    told.lives.replace("a")
    assert told.state() is P.RUNNING
    assert (len(told.events) == count) == (trigger is None)


def test_what_runs_is_not_forgotten(told: Told) -> None:
    told.start()
    told.lives.forget("a")
    assert told.state() is P.RUNNING
    told.lives.step("a", T.FAIL)
    told.lives.forget("a")
    assert told.lives.all() == ()


def test_so_many_that_ended_are_remembered(told: Told) -> None:
    told.start("running")
    for number in range(MAX_ENDED + 10):
        told.start(f"p{number}", AdmissionError("no"), 1)
    known = told.lives.all()
    assert len(known) == MAX_ENDED + 1
    assert told.state("running") is P.RUNNING
    assert told.state("p9") is None
    assert told.state("p10") is P.FAILED


def test_a_long_reason_is_cut(told: Told) -> None:
    told.start()
    told.lives.step("a", T.FAIL, "x" * 10_000)
    assert len(told.events[-1]["reason"]) == len(told.lines[-1][2]) == 500


@given(st.lists(st.sampled_from(Trigger), max_size=30))
def test_whatever_comes_the_table_is_kept(triggers: list[Trigger]) -> None:
    told = Told()
    state = FIRST
    for trigger in triggers:
        happened = told.lives.step("a", trigger)
        assert happened == (trigger in TABLE[state])
        state = TABLE[state].get(trigger, state)
        if happened:
            assert told.events[-1]["after"] == state
    assert len(told.events) == len(told.lines)
    if told.state() in ENDS:
        told.start()
        assert told.state() is P.RUNNING


def test_from_many_threads(told: Told) -> None:
    """Each step has one before it that ends where it begins, and each is told once."""
    told.start()

    def trouble() -> None:
        for _ in range(200):
            told.lives.step("a", T.WORSEN)
            told.lives.step("a", T.RECOVER)

    threads = [threading.Thread(target=trouble) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    steps = [one["step"] for one in told.events[4:]]
    assert abs(steps.count("worsen") - steps.count("recover")) <= 1
    assert len(told.lines) == 2 + len(steps)
