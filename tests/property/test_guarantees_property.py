"""More layers never keep fewer guarantees, whatever they are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.guarantees import WAYS, missing, restricted, standing
from sandbox_host.model import Guarantee, Layer, LayerStatus

LAYERS = st.frozensets(st.sampled_from(Layer))
RANK = {LayerStatus.UNAVAILABLE: 0, LayerStatus.DEGRADED: 1, LayerStatus.ACTIVE: 2}


@given(LAYERS, LAYERS)
def test_more_layers_never_make_it_worse(some, more):
    before, after = standing(some), standing(some | more)
    for old, new in zip(before, after, strict=True):
        assert RANK[new.status] >= RANK[old.status]


@given(LAYERS)
def test_kept_by_layers_that_are_in_force_or_told_what_would_help(in_force):
    for report in standing(in_force):
        if report.status is LayerStatus.UNAVAILABLE:
            for way in report.detail.removeprefix("would take ").split(", or "):
                added = set(way.split(" and "))
                assert added <= set(Layer)
                assert not added & in_force
                assert report.guarantee not in missing(in_force | added)
                assert all(report.guarantee in missing(in_force | added - {one}) for one in added)
        else:
            assert set(report.detail.split("; ")[0].split(", ")) <= in_force


@given(LAYERS)
def test_every_guarantee_has_one_standing(in_force):
    reports = standing(in_force)
    assert [r.guarantee for r in reports] == list(Guarantee) == list(WAYS)
    kept = {r.guarantee for r in reports if r.status is not LayerStatus.UNAVAILABLE}
    assert kept == set(Guarantee) - set(missing(in_force))
    degraded = {r for r in reports if r.status is LayerStatus.DEGRADED}
    assert set(restricted(in_force)) <= degraded
