"""A curve stays small, keeps its ends and its peak, and says when."""

from __future__ import annotations

import itertools
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.observe.curve import Curve, Point, thinned

MOST = 16


def fill(curve: Curve, looks: int, resident: dict[int, int] | None = None) -> None:
    for look in range(looks):
        curve.add(look / 50, look / 100, (resident or {}).get(look, 1_000), 2, 9)


def test_everything_is_kept_while_there_is_room() -> None:
    curve = Curve(MOST)
    fill(curve, MOST - 2)
    assert curve.points() == tuple(
        Point(look / 50, look / 100, 1_000, 2, 9) for look in range(MOST - 2)
    )


def test_none_has_no_points() -> None:
    assert Curve().points() == ()


def test_times_are_counted_from_where_the_reader_says() -> None:
    curve = Curve(MOST)
    curve.add(100.5, 0.0, 1, 1, 1)
    curve.add(101.0, 0.0, 2, 1, 1)
    assert [point.at_seconds for point in curve.points(since_seconds=100.0)] == [0.5, 1.0]


def test_what_comes_late_is_dropped() -> None:
    curve = Curve(MOST)
    curve.add(2.0, 0.0, 1, 1, 1)
    curve.add(1.0, 0.0, 9, 1, 1)
    assert [point.at_seconds for point in curve.points()] == [2.0]


def test_too_small_to_be_a_curve() -> None:
    with pytest.raises(ValueError, match="at least 8 points, not 7"):
        Curve(7)


@pytest.mark.parametrize("looks", [MOST, 100, 10_000])
def test_points_are_spread_over_the_whole_life(looks: int) -> None:
    curve = Curve(MOST)
    fill(curve, looks)
    times = [point.at_seconds for point in curve.points()]
    assert (times[0], times[-1]) == (0.0, (looks - 1) / 50)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    # The newest may come right after the last that is kept.
    assert max(gaps) <= 2.01 * min(gaps[:-2])
    assert len(times) >= MOST // 2


looks = st.lists(st.tuples(st.floats(0, 5), st.integers(0, 2**40)), min_size=1, max_size=400)


@given(looks, st.integers(8, 40))
def test_bounds_ends_and_peak_whatever_comes(seen: list[tuple[float, int]], most: int) -> None:
    curve = Curve(most)
    at, given_points = 0.0, []
    for gap, resident in seen:
        at += gap
        curve.add(at, at, resident, 1, 1)
        given_points.append(Point(at, at, resident, 1, 1))
        points = curve.points()
        assert len(points) <= most
        assert points[-1].at_seconds == at
    assert set(points) <= set(given_points)
    assert points[0] == given_points[0] or points[0].at_seconds == given_points[0].at_seconds
    assert max(p.resident_bytes for p in points) == max(resident for _, resident in seen)
    assert [p.at_seconds for p in points] == sorted(p.at_seconds for p in points)


def test_a_time_that_stands_still_is_bounded_too() -> None:
    curve = Curve(MOST)
    for number in range(1_000):
        curve.add(1.0, 0.0, number, 1, 1)
        assert len(curve.points()) <= MOST
    assert curve.points()[-1].resident_bytes == 999


def test_thinned() -> None:
    points = tuple(Point(float(n), 0.0, 5 if n == 33 else 1, 1, 1) for n in range(100))
    assert thinned(points[:MOST], MOST) == points[:MOST]
    few = thinned(points, MOST)
    assert len(few) <= MOST
    assert set(few) <= set(points)
    assert {points[0], points[33], points[-1]} <= set(few)


def test_several_threads_may_feed_it() -> None:
    curve = Curve(MOST)
    threads = [threading.Thread(target=fill, args=(curve, 2_000)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = [point.at_seconds for point in curve.points()]
    assert times == sorted(times)
    assert times[-1] == 1_999 / 50
    assert len(times) <= MOST
