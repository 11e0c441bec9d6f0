# SPDX-License-Identifier: Apache-2.0
"""Rule names packed into arrays are the rule names that went in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgnetd.datapath.refs import RuleRef, RuleRefs

WORDS = st.sampled_from(["", "web", "egress", "/etc/a.yaml", "caf\u00e9 \udcff"])
REFS = st.lists(
    st.tuples(
        WORDS,
        st.text(max_size=5),
        WORDS,
        WORDS,
        st.integers(0, 2**40),
        WORDS,
        st.integers(0, 133),
        st.booleans(),
        WORDS,
        st.booleans(),
        WORDS,
    ),
    max_size=8,
).map(lambda rows: [RuleRef(number, *row) for number, row in enumerate(rows)])


@given(refs=REFS)
def test_refs_come_out_as_they_went_in(refs: list[RuleRef]) -> None:
    packed = RuleRefs(refs)
    assert list(packed) == refs == [packed[number] for number in range(len(packed))]
    assert packed[1:3] == tuple(refs[1:3])
    assert packed == RuleRefs(iter(refs))
    assert hash(packed) == hash(RuleRefs(refs))


@given(refs=REFS, others=REFS)
def test_packed_refs_are_equal_where_refs_are(refs: list[RuleRef], others: list[RuleRef]) -> None:
    assert (RuleRefs(refs) == RuleRefs(others)) == (refs == others)


def test_ids_that_are_not_dense_are_refused() -> None:
    ref = RuleRef(1, "p", "r", "egress", "f", 1, "deny", 1, True, "normal", False)
    with pytest.raises(ValueError, match="dense"):
        RuleRefs([ref])
    with pytest.raises(IndexError):
        RuleRefs([ref._replace(rule_id=0)])[1]
