"""What confines a plugin: every layer that is offered, and no guarantee missing unnamed."""

from __future__ import annotations

import pytest

from sandbox_host.admission.confinement import confine
from sandbox_host.admission.policy import Policy
from sandbox_host.errors import ConfinementError
from sandbox_host.guarantees import PROMISES, WAYS, missing
from sandbox_host.model import FIXED_LAYERS, Guarantee, Layer

ALL = frozenset(Layer)
SWITCHES = [layer for layer in Layer if layer not in FIXED_LAYERS]


def policy(*accepted, disabled=()):
    return Policy(accept_missing=frozenset(accepted), disabled=frozenset(disabled))


def refused(offered=ALL, *accepted, disabled=()):
    with pytest.raises(ConfinementError) as caught:
        confine("sample", policy(*accepted, disabled=disabled), offered)
    return caught.value


def test_everything_offered():
    made = confine("sample", Policy(), ALL)
    assert made.layers == tuple(Layer)
    assert (made.disabled, made.accepted_missing, made.notes) == ((), (), ())


@pytest.mark.parametrize("layer", SWITCHES)
def test_a_layer_that_is_switched_off_is_refused_by_its_name(layer):
    error = refused(ALL, disabled=[layer])
    assert error.layer == layer
    assert f"layer {layer} is switched off by disable_layers" in error.message
    assert error.remedy.startswith(f"Remove {layer} from disable_layers in the host's TOML.")
    assert f'accept_missing = ["{layer}"' in error.remedy
    # Where all is kept without it, there is nothing that doctor would explain.
    assert (missing(ALL - {layer}) == ()) == ("doctor" not in error.remedy)


@pytest.mark.parametrize("layer", SWITCHES)
def test_a_layer_that_is_switched_off_and_accepted_is_told(layer):
    lost = missing(ALL - {layer})
    made = confine("sample", policy(layer, *lost, disabled=[layer]), ALL)
    assert layer not in made.layers
    assert made.disabled == (layer,)
    assert made.accepted_missing == lost
    assert made.notes[0] == f"layer {layer} is switched off, and the operator accepted that"


@pytest.mark.parametrize("layer", [x for x in SWITCHES if missing(ALL - {x})])
def test_what_goes_missing_with_it_is_accepted_by_name_as_well(layer):
    lost = missing(ALL - {layer})
    for one in lost:
        error = refused(ALL, layer, *(set(lost) - {one}), disabled=[layer])
        assert error.layer == one
        assert f"guarantee {one} ({PROMISES[one]}) is missing: it would take {layer}" in str(error)
        assert f"Remove {layer} from disable_layers" in error.remedy
    # Nor does accepting those accept the switch.
    assert refused(ALL, *lost, disabled=[layer]).layer == layer


@pytest.mark.parametrize(
    ("guarantee", "way"), [(g, way) for g, ways in WAYS.items() for way in ways[:1]]
)
def test_just_too_little_is_refused_by_the_guarantees_name(guarantee, way):
    others = set(Guarantee) - {guarantee}
    kept = confine("sample", policy(*others), frozenset(way.layers))
    assert guarantee not in kept.accepted_missing
    for layer in way.layers:
        offered = frozenset(way.layers) - {layer}
        if guarantee in missing(offered):
            error = refused(offered, *others)
            assert error.layer == guarantee
            assert f"guarantee {guarantee} ({PROMISES[guarantee]}) is missing" in error.message
            assert layer in error.message
            assert "Run sandbox-host doctor" in error.remedy
            assert f'"{guarantee}"' in error.remedy


@pytest.mark.parametrize("guarantee", Guarantee)
def test_accepting_all_but_one_does_not_help(guarantee):
    error = refused(frozenset(), *(set(Guarantee) - {guarantee}), *Layer)
    assert error.layer == guarantee


def test_several_are_told_at_once():
    error = refused(ALL - {Layer.RLIMITS}, Guarantee.DISK, disabled=[Layer.UTS_NAMESPACE])
    assert error.layer == Layer.UTS_NAMESPACE
    assert error.message == (
        "Plugin sample is not admitted: layer uts-namespace is switched off by disable_layers; "
        "guarantee cpu (CPU time is bounded) is missing: it would take rlimits; "
        "guarantee descriptors (open descriptors are bounded) is missing: it would take rlimits."
    )
    assert error.remedy == (
        "Remove uts-namespace from disable_layers in the host's TOML. "
        "Run sandbox-host doctor to see what this machine offers, and why not more. "
        "To do without knowingly, write in the host's TOML: "
        'accept_missing = ["uts-namespace", "cpu", "descriptors", "disk"].'
    )


def test_a_layer_that_the_machine_lacks_is_no_refusal_by_itself():
    made = confine("sample", Policy(), ALL - {Layer.UTS_NAMESPACE})
    assert Layer.UTS_NAMESPACE not in made.layers
    assert (made.disabled, made.accepted_missing, made.notes) == ((), (), ())


def test_an_accepted_layer_that_is_offered_is_still_applied():
    made = confine("sample", policy(Layer.SECCOMP, Guarantee.PROGRAMS), ALL)
    assert Layer.SECCOMP in made.layers
    assert (made.accepted_missing, made.notes) == ((), ())


def test_a_guarantee_that_is_kept_with_less_is_a_note():
    made = confine("sample", Policy(), ALL - {Layer.OWN_ROOT})
    files, *_, disk = made.notes
    assert files == (
        "guarantee files is kept with a restriction, by landlock, seccomp; "
        "whether a file exists, its size and times can be found out"
    )
    assert disk.startswith("guarantee disk is kept with a restriction, by rlimits, watchdog; ")
    assert made.accepted_missing == ()


def test_a_missing_guarantee_is_a_note():
    made = confine("sample", policy(Guarantee.DESCRIPTORS), frozenset(), frozenset())
    assert made.accepted_missing == (Guarantee.DESCRIPTORS,)
    (note,) = made.notes
    assert note == (
        "guarantee descriptors (open descriptors are bounded) is missing: it would take rlimits; "
        "the operator accepted that"
    )
