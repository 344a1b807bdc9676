"""A machine that lacks something, and an operator who switches a layer off.

A guarantee that nothing keeps is refused by its name, a layer that is switched off by its own;
accepted by name the plugin runs, and receipt, log and journal say so. As root and as ordinary user.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from sandbox_host.model import FIXED_LAYERS, Layer
from tests.support.users import ORDINARY, ROOT, USERS, users

pytestmark = [
    pytest.mark.needs("user-namespace", "own-root", "landlock", "seccomp"),
    pytest.mark.skipif(sys.platform != "linux", reason="kernels are imitated with seccomp"),
    # The first test of a user and a kernel goes through all of it: ten seconds, or a minute.
    pytest.mark.timeout(300),
]

Attempt = Callable[..., Any]

NAMESPACES = {
    *("user-namespace", "pid-namespace", "network-namespace", "ipc-namespace", "uts-namespace"),
    *("cgroup-namespace", "own-root", "own-uid"),
}
NOT_FOR_ORDINARY_USERS = {"own-uid", "cgroup"}
WITHOUT_OWN_ROOT = {"files", "processes", "disk"}

# Kernels on which every guarantee is kept all the same: layers that are missing, guarantees that
# are kept with a restriction.
ENOUGH = {
    "whole": (set(), set()),
    "without landlock": ({"landlock"}, {"files"}),
    "before mount_setattr": ({"own-root", "own-uid"}, WITHOUT_OWN_ROOT),
    "without mount": ({"own-root", "own-uid"}, WITHOUT_OWN_ROOT),
    "container": (NAMESPACES, WITHOUT_OWN_ROOT),
    "container, with what we need": (set(), set()),
}
# Kernels on which they are not: layers that are missing, guarantees that nothing keeps.
NOT_ENOUGH = {
    "without seccomp": ({"seccomp"}, ["programs", "kernel-surface", "cpu"]),
    "container without landlock": (
        {"landlock", *NAMESPACES},
        ["files", "processes", "secrets"],
    ),
}

ALL_GUARANTEES = (
    *("files", "network", "processes", "programs", "kernel-surface", "secrets", "lifetime"),
    *("memory", "cpu", "tasks", "descriptors", "disk"),
)


SWITCHABLE = [layer.value for layer in Layer if layer not in FIXED_LAYERS]


def accepting(kernel: str) -> list[dict[str, Any]]:
    """Accept nothing, everything, and everything but one that is missing."""
    accepted = [[], [*ALL_GUARANTEES]]
    accepted += [[g for g in ALL_GUARANTEES if g != name] for name in NOT_ENOUGH[kernel][1]]
    return [{"accept_missing": names} for names in accepted]


def switching_off(layer: str) -> list[dict[str, Any]]:
    """Accept nothing, all guarantees, the layer alone, and all of that."""
    accepted = [[], [*ALL_GUARANTEES], [layer], [layer, *ALL_GUARANTEES]]
    return [{"disable_layers": [layer], "accept_missing": names} for names in accepted]


FAILS_LATE, ACCEPTING_ALL = "landlock fails late", {"accept_missing": [*ALL_GUARANTEES]}

# What is tried on each kernel: each of them is imitated once for each user.
CONFIGS: dict[str, list[dict[str, Any]]] = {
    **{kernel: [{}] for kernel in ENOUGH},
    **{kernel: accepting(kernel) for kernel in NOT_ENOUGH},
    FAILS_LATE: [ACCEPTING_ALL],
}
CONFIGS["whole"] += [config for layer in SWITCHABLE for config in switching_off(layer)]


@pytest.fixture(scope="module")
def attempt() -> Iterator[Attempt]:
    """Return a function of user, kernel and configurations: what came of each configuration."""
    with users() as runner:

        @functools.cache
        def run(user: str, kernel: str) -> Any:
            argument = json.dumps({"kernel": kernel, "configs": CONFIGS[kernel]})
            printed = runner.run(user, "tests.support.lesser_kernel", argument, timeout=280)
            return json.loads(printed)

        def find(user: str, kernel: str, *configs: Any) -> list[Any]:
            places = [CONFIGS[kernel].index(config) for config in configs]
            return [run(user, kernel)[place] for place in places]

        yield find


def with_status(reports: dict[str, list[str]], status: str) -> set[str]:
    return {name for name, report in reports.items() if report[0] == status}


def lost(user: str, outcome: Any, *always: str, without_cgroup: Iterable[str] = ()) -> list[str]:
    """Return the guarantees that nothing keeps, in their order; a control group keeps some."""
    names = {*always}
    if outcome["layers"]["cgroup"][0] != "active":
        names |= {*without_cgroup} - ({"tasks"} if user == ROOT else set())
    order = list(outcome["guarantees"])
    return sorted(names, key=order.index)


@pytest.mark.parametrize("kernel", ENOUGH)
def test_layers_may_be_missing_where_others_keep_the_guarantees(
    attempt: Attempt, user: str, kernel: str
) -> None:
    layers, restricted = ENOUGH[kernel]
    (outcome,) = attempt(user, kernel, {})
    assert outcome["refused"] == ""
    unavailable = with_status(outcome["layers"], "unavailable")
    more = NOT_FOR_ORDINARY_USERS if user == ORDINARY else {"cgroup"}
    assert layers <= unavailable <= layers | more
    assert with_status(outcome["guarantees"], "unavailable") == set()
    if kernel == "container" and "cgroup" in unavailable:
        restricted = restricted | {"tasks"}
    assert with_status(outcome["guarantees"], "degraded") == restricted
    assert outcome["passwd"] in {"PermissionError", "FileNotFoundError"}


@pytest.mark.parametrize("kernel", ENOUGH)
def test_missing_layer_is_told_with_reason_and_remedy(
    attempt: Attempt, user: str, kernel: str
) -> None:
    layers, restricted = ENOUGH[kernel]
    (outcome,) = attempt(user, kernel, {})
    for name in layers:
        _, reason, remedy = outcome["layers"][name]
        assert reason
        assert remedy
    told = "\n".join(outcome["log"])
    for name in restricted:
        assert f"guarantee {name} is kept with a restriction" in told
    (started,) = [detail for event, detail in outcome["journal"] if event == "started"]
    assert not layers & set(started.partition("layers ")[2].split(", "))


@pytest.fixture(params=USERS)
def user(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=NOT_ENOUGH)
def kernel(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def not_enough(attempt: Attempt, user: str, kernel: str) -> Any:
    """Return what came of accepting nothing, everything, and everything but one that is missing."""
    return attempt(user, kernel, *accepting(kernel))


def test_missing_guarantee_is_refused_by_name(not_enough: Any, kernel: str) -> None:
    _, missing = NOT_ENOUGH[kernel]
    outcome, *_ = not_enough
    assert outcome["refused"] == missing[0]
    assert not outcome["executed"]
    for name in missing:
        assert f"guarantee {name} (" in outcome["text"]
        assert f'"{name}"' in outcome["text"].partition("accept_missing = ")[2]
    refusals = [detail for event, detail in outcome["journal"] if event == "refused"]
    assert [missing[0] in detail for detail in refusals] == [True]


def test_accepting_others_does_not_help(not_enough: Any, kernel: str) -> None:
    _, missing = NOT_ENOUGH[kernel]
    _, _, *others = not_enough
    assert [outcome["refused"] for outcome in others] == missing
    assert not any(outcome["executed"] for outcome in others)


def test_accepted_by_name_runs_and_everything_says_so(
    not_enough: Any, user: str, kernel: str
) -> None:
    layers, always = NOT_ENOUGH[kernel]
    _, outcome, *_ = not_enough
    more = ("memory", "tasks") if kernel == "without seccomp" else ()
    missing = lost(user, outcome, *always, without_cgroup=more)
    assert outcome["executed"]
    assert layers <= with_status(outcome["layers"], "unavailable")
    assert with_status(outcome["guarantees"], "unavailable") == set(missing)
    journal = [detail for event, detail in outcome["journal"] if event == "guarantee_missing"]
    assert journal == missing
    for name in missing:
        assert any(f"guarantee {name} (" in line and "accepted" in line for line in outcome["log"])
    # What remains, remains.
    assert (outcome["passwd"] == "read") == ("files" in missing)


def test_layer_that_fails_only_in_the_child_is_refused_by_name(attempt: Attempt, user: str) -> None:
    """The kernel offered it when it was asked; accepting a missing guarantee is not for this."""
    (outcome,) = attempt(user, FAILS_LATE, ACCEPTING_ALL)
    assert outcome["refused"] == "landlock"
    assert not outcome["executed"]
    assert [e for e, _ in outcome["journal"] if e in {"started", "start_failed"}] == [
        "start_failed"
    ]


# -- switched off by the operator ---------------------------------------------------------------

# Guarantees that go missing with it, and those that do where there is no control group.
GOES_WITH = {
    "seccomp": (("programs", "kernel-surface", "cpu"), ("memory", "tasks")),
    "rlimits": (("cpu", "descriptors", "disk"), ("memory",)),
}


@pytest.fixture(params=SWITCHABLE)
def layer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def switched_off(attempt: Attempt, user: str, layer: str) -> Any:
    """Return what came of accepting nothing, all guarantees, the layer alone, and all of that."""
    return attempt(user, "whole", *switching_off(layer))


def test_switched_off_layer_is_refused_by_its_name(switched_off: Any, layer: str) -> None:
    for outcome in switched_off[:2]:
        assert outcome["refused"] == layer
        assert f"layer {layer} is switched off by disable_layers" in outcome["text"]
        assert f"Remove {layer} from disable_layers" in outcome["text"]
        assert not outcome["executed"]


def test_guarantees_that_go_missing_with_it_have_to_be_accepted_too(
    switched_off: Any, layer: str
) -> None:
    outcome = switched_off[2]
    always, _ = GOES_WITH.get(layer, ((), ()))
    assert bool(outcome["refused"]) == bool(always)
    assert outcome["executed"] != bool(always)
    for name in always:
        assert f"guarantee {name} (" in outcome["text"]


def test_accepted_by_its_name_it_runs_without_and_everything_says_so(
    switched_off: Any, user: str, layer: str
) -> None:
    outcome = switched_off[3]
    always, without_cgroup = GOES_WITH.get(layer, ((), ()))
    missing = lost(user, outcome, *always, without_cgroup=without_cgroup)
    assert outcome["executed"]
    status, detail, remedy = outcome["layers"][layer]
    assert (status, bool(detail), bool(remedy)) == ("disabled", True, True)
    assert with_status(outcome["guarantees"], "unavailable") == set(missing)
    assert [d for e, d in outcome["journal"] if e == "layer_disabled"] == [layer]
    assert [d for e, d in outcome["journal"] if e == "guarantee_missing"] == missing
    assert any(f"layer {layer} is switched off" in line for line in outcome["log"])


def test_receipt_claims_nothing_of_it(switched_off: Any, layer: str) -> None:
    outcome = switched_off[3]
    (started,) = [detail for event, detail in outcome["journal"] if event == "started"]
    assert layer not in started.partition("layers ")[2].split(", ")
    for status, by in outcome["guarantees"].values():
        if status != "unavailable":
            assert layer not in by.partition(";")[0].split(", ")
    mechanisms = {"cgroup": "control group", "rlimits": "RLIMIT_", "own-root": "tmpfs"}
    word = mechanisms.get(layer, "no such word")
    claimed = [entry for entry in outcome["limits"] if entry[1] != "none"]
    assert not [entry for entry in claimed if word in entry[2]]
