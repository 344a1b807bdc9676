"""Whatever a plugin reports, what is shown is one short and printable line in the host's words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.admission.explanations import RULES, explained, read_report
from sandbox_host.model import Permissions
from sandbox_host.reading import is_printable

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
REPORTS = st.fixed_dictionaries(
    {},
    optional={
        "rule": st.sampled_from([*RULES, "bundle", "never", "all", ""]) | VALUES,
        "asked": st.text(max_size=400) | st.sampled_from(["/srv", "a:1", "PATH"]) | VALUES,
        "where": st.text(max_size=400) | st.just("main.py:3 in f") | VALUES,
        "text": st.text(),
    },
)
GRANTED = st.builds(
    Permissions,
    read=st.sampled_from([(), ("/srv",)]),
    network=st.sampled_from([(), ("a:1",)]),
    unix=st.sampled_from([(), ("/run/x",)]),
    threads=st.booleans(),
)


@given(REPORTS | VALUES, GRANTED)
def test_what_is_shown_is_harmless(told: object, granted: Permissions) -> None:
    report = read_report(told)
    if report is None:
        return
    denial = explained(report, granted)
    assert denial.rule in {*RULES, "bundle", "never"}
    assert is_printable(denial.text)
    assert len(denial.text) < 2_000
    assert denial.request in denial.text
    shown = denial.text.replace(denial.place, "").replace("…", "")
    assert shown.isascii()
    assert not denial.request or denial.request.startswith(f'"permissions": {{"{denial.rule}": ')
