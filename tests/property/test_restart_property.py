"""Whatever a plugin does: delays within their bounds, and never too many starts in a window."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.supervision.restart import Quarantine, RestartPolicy, Restarts

chance = st.floats(0, 1, exclude_max=True)
policies = st.builds(
    lambda first, factor, more, jitter, ends, window, steady: RestartPolicy(
        first, factor, first * more, jitter, ends, window, steady
    ),
    st.floats(0.001, 10) | st.just(0.0),
    st.floats(1, 10),
    st.floats(1, 1_000),
    st.floats(0, 1),
    st.integers(1, 12),
    st.floats(0.01, 1_000),
    st.floats(0.01, 100),
)
runs = st.lists(st.tuples(st.floats(0, 200) | st.just(0.0), chance, st.booleans()), max_size=60)


@given(policies, st.lists(chance, min_size=2, max_size=80))
def test_delays_are_bounded_and_grow_up_to_the_longest(policy, chances):
    """Of ends in a row, each so long after the one before that none leads into quarantine."""
    restarts, now, before = Restarts(policy), 0.0, None
    for one in chances:
        now += policy.window_seconds * 2
        decided = restarts.decide(now, one)
        if isinstance(decided, Quarantine):
            assert policy.most_ends == 1
            return
        delay = decided.at - now
        least = delay / (1 + policy.jitter * one)  # without what chance has added
        near = 1e-9 + 1e-9 * now
        assert policy.first_delay_seconds - near <= least <= policy.longest_delay_seconds + near
        assert delay <= least * (1 + policy.jitter) + near
        if before is not None:
            wanted = min(policy.longest_delay_seconds, before * policy.factor)
            assert abs(least - wanted) <= near * (1 + policy.factor)
        before = least


@given(policies, runs)
def test_never_more_starts_in_a_window_than_ends_are_allowed(policy, lived):
    restarts, starts, ends, now = Restarts(policy), [0.0], [], 0.0
    for seconds, one, ready in lived:
        if ready:
            restarts.started(now)
        now += seconds
        ends.append(now)
        decided = restarts.decide(now, one)
        within = [end for end in ends if now - end < policy.window_seconds]
        if isinstance(decided, Quarantine):
            assert len(within) >= policy.most_ends  # no sooner than it has to be
            break
        assert len(within) < policy.most_ends
        assert now <= decided.at
        now = decided.at
        starts.append(now)
    for first in starts:
        in_window = [one for one in starts if 0 <= one - first < policy.window_seconds]
        assert len(in_window) <= policy.most_ends


@given(policies, runs)
def test_only_a_long_run_shortens_the_delay(policy, lived):
    restarts, now, before = Restarts(policy), 0.0, 0.0
    for seconds, _, ready in lived:
        began = now
        if ready:
            restarts.started(began)
        now += seconds
        decided = restarts.decide(now, 0.0)
        if isinstance(decided, Quarantine):
            break
        delay = decided.at - now
        if delay < before - 1e-9 - 1e-9 * now:
            assert ready
            assert now - began >= policy.steady_seconds
        before, now = delay, decided.at
