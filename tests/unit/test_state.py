# SPDX-License-Identifier: Apache-2.0
"""The plan of a pass: its order is right at every step, it ends where it should, and it can be broken off anywhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgnetd.datapath import abi
from cgnetd.datapath.compile import compile_image
from cgnetd.datapath.state import (
    BIND_HOOKS,
    EGRESS_HOOKS,
    LABELLING_HOOKS,
    VIEW_HOOKS,
    DesiredState,
    LabelState,
    ObservedState,
    SlotState,
    diff,
    hooks_in_force,
)
from cgnetd.datapath.steps import (
    Activate,
    AttachLink,
    ClearSlot,
    Control,
    DetachLink,
    DropLabels,
    FixControl,
    LinkState,
    Relabel,
    RepairPins,
    Step,
    UpdateLink,
    WriteGeneration,
)
from cgnetd.policy.types import (
    Action,
    Endpoint,
    Hook,
    Pattern,
    PatternKind,
    Policy,
    PolicySet,
    Protocol,
    Redirect,
    Rewrite,
    Rule,
    Section,
    Subject,
    TcpSettings,
    Where,
)

WHERE = Where("p.yaml", 1)
SUBJECT = Subject((Pattern(PatternKind.UNIT, "a.service"),))
CONTROL = Control(root_id=1234, root_level=1, window_ns=10**10)
ALL_HOOKS = LABELLING_HOOKS | EGRESS_HOOKS | BIND_HOOKS
EMPTY = SlotState()


def links(*names: str, state: LinkState = LinkState.OK) -> dict[str, LinkState]:
    return dict.fromkeys(names, state)


def settled(digest: str = "d1", hooks: frozenset[str] = ALL_HOOKS, active: int = 0) -> ObservedState:
    slots = [EMPTY, EMPTY]
    slots[active] = SlotState(7, digest)
    return ObservedState(CONTROL, active, tuple(slots), links(*hooks), hooks)


def desired(digest: str = "d1", hooks: frozenset[str] = ALL_HOOKS) -> DesiredState:
    return DesiredState(digest, hooks, CONTROL)


NOTHING = ObservedState(Control(0, 0, 0), 0, (EMPTY, EMPTY), {})


def kinds(steps: tuple[Step, ...]) -> list[str]:
    """Kinds of steps in order, neighbours of one kind once."""
    names = [type(step).__name__ for step in steps]
    return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]


def test_nothing_is_to_do_where_everything_is_as_it_should_be() -> None:
    plan = diff(desired(), settled())
    assert not plan
    assert plan.repairs == ()


def test_the_first_start_labels_and_attaches_before_it_puts_in_force() -> None:
    plan = diff(desired(), NOTHING)
    expected = ["FixControl", "WriteGeneration", "AttachLink", "Relabel", "AttachLink", "Activate"]
    assert kinds(plan.steps) == expected
    first = [step.name for step in plan.steps if isinstance(step, AttachLink)][:2]
    assert set(first) == LABELLING_HOOKS
    assert plan.repairs == ()


def test_a_changed_policy_is_written_beside_the_one_in_force() -> None:
    plan = diff(desired("d2"), settled("d1", active=1))
    assert plan.steps == (WriteGeneration(False, 0), Relabel(False), Activate(False, 0), ClearSlot(False, 1))


def test_hooks_come_before_the_generation_that_needs_them_and_go_after_it() -> None:
    plan = diff(desired("d2", LABELLING_HOOKS | BIND_HOOKS), settled("d1", LABELLING_HOOKS | EGRESS_HOOKS))
    assert kinds(plan.steps) == ["WriteGeneration", "Relabel", "AttachLink", "Activate", "ClearSlot", "DetachLink"]
    assert {step.name for step in plan.steps if isinstance(step, DetachLink)} == EGRESS_HOOKS
    assert plan.repairs == ()


def test_view_hooks_stay_while_there_are_policies() -> None:
    views = frozenset({"getpeername4", "recvmsg4"})
    seen = settled("d1", ALL_HOOKS | views)
    assert diff(desired("d2"), seen).steps == (
        WriteGeneration(False, 1),
        Relabel(False),
        Activate(False, 1),
        ClearSlot(False, 0),
    )
    detached = {step.name for step in diff(desired("", frozenset()), seen).steps if isinstance(step, DetachLink)}
    assert detached == ALL_HOOKS | views


def test_hooks_that_take_views_back_stay_with_those_that_show_them() -> None:
    """A generation without rules on addresses: sockets that were redirected can connect elsewhere all the same."""
    views = frozenset({"getpeername4", "getsockname6", "recvmsg4", "recvmsg_unix"})
    seen = settled("d1", ALL_HOOKS | views | {"connect_unix", "sendmsg_unix"})
    wanted = desired("d2", LABELLING_HOOKS | {"sock_create"})
    detached = {step.name for step in diff(wanted, seen).steps if isinstance(step, DetachLink)}
    assert detached == {"post_bind4", "post_bind6"}
    plain = diff(wanted, settled("d1", ALL_HOOKS))
    assert {step.name for step in plain.steps if isinstance(step, DetachLink)} == (
        ALL_HOOKS - LABELLING_HOOKS - {"sock_create"}
    )


def test_a_view_hook_that_stays_is_kept_right() -> None:
    seen = replace(settled(), links={**links(*ALL_HOOKS), "recvmsg4": LinkState.BROKEN, "recvmsg6": LinkState.OUTDATED})
    assert diff(desired(), seen).steps == (
        AttachLink(True, "recvmsg4", LinkState.BROKEN),
        UpdateLink(False, "recvmsg6"),
    )
    gone = replace(settled(), links={**links(*ALL_HOOKS), "recvmsg4": LinkState.MISSING})
    assert not diff(desired(), gone)


def test_flags_of_control_are_never_taken_back() -> None:
    views = replace(CONTROL, flags=abi.CONTROL_VIEWS)
    assert not diff(desired(), replace(settled(), control=views))
    assert diff(DesiredState("d1", ALL_HOOKS, views), settled()).steps == (FixControl(False, views),)
    moved = replace(views, window_ns=5)
    assert diff(desired(), replace(settled(), control=moved)).steps == (FixControl(False, views),)


def test_no_policies_leave_nothing_attached_and_nothing_in_force() -> None:
    plan = diff(desired("", frozenset()), settled())
    names = [step.name for step in plan.steps if isinstance(step, DetachLink)]
    assert set(names) == ALL_HOOKS
    assert set(names[-2:]) == LABELLING_HOOKS
    assert plan.steps[-1] == ClearSlot(False, 0)
    assert not diff(desired("", frozenset()), replace(NOTHING, control=CONTROL))


@pytest.mark.parametrize("state", [LinkState.MISSING, LinkState.BROKEN])
def test_a_link_that_was_taken_away_is_drift(state: LinkState) -> None:
    observed = settled()
    plan = diff(desired(), replace(observed, links={**observed.links, "connect4": state}))
    assert plan.steps == plan.repairs == (AttachLink(True, "connect4", state),)


def test_every_cgroup_is_labelled_again_after_new_ones_were_not() -> None:
    observed = settled()
    plan = diff(desired(), replace(observed, links={**observed.links, "cgroup_mkdir": LinkState.BROKEN}))
    assert plan.steps == (AttachLink(True, "cgroup_mkdir", LinkState.BROKEN), Relabel(True))


def test_another_version_of_a_program_is_no_drift() -> None:
    observed = settled()
    plan = diff(desired(), replace(observed, links={**observed.links, "bind4": LinkState.OUTDATED}))
    assert plan.steps == (UpdateLink(False, "bind4"),)


def test_another_program_in_a_link_that_was_right_is_drift() -> None:
    observed = settled()
    swapped = replace(observed, links={**observed.links, "bind4": LinkState.OUTDATED}, seen_right=ALL_HOOKS)
    assert diff(desired(), swapped).repairs == (UpdateLink(True, "bind4"),)


def test_labels_and_pins_that_were_edited_are_drift() -> None:
    labels = LabelState(wrong=3, foreign=2, stale=1)
    plan = diff(desired(), replace(settled(), labels=labels, lost_pins=("labels",)))
    assert plan.steps == plan.repairs == (RepairPins(True, ("labels",)), Relabel(True, 3), DropLabels(True, 3))


def test_labels_of_removed_cgroups_are_no_drift() -> None:
    plan = diff(desired(), replace(settled(), labels=LabelState(stale=4)))
    assert plan.steps == (DropLabels(False, 4),)


def test_a_damaged_generation_is_replaced_from_the_other_slot() -> None:
    plan = diff(desired(), replace(settled(), slots=(SlotState(7, ""), EMPTY)))
    assert plan.steps == (WriteGeneration(True, 1), Relabel(True), Activate(True, 1), ClearSlot(False, 0))
    assert len(plan.repairs) == 3


def test_what_a_broken_off_pass_left_in_the_other_slot_is_cleared() -> None:
    plan = diff(desired(), replace(settled(), slots=(SlotState(7, "d1"), SlotState(8, "d2"))))
    assert plan.steps == (ClearSlot(False, 1),)


@pytest.mark.parametrize(
    ("control", "drift"),
    [
        (replace(CONTROL, window_ns=1), False),
        (replace(CONTROL, root_id=9), True),
        (replace(CONTROL, root_level=9), True),
        (replace(CONTROL, netns=4026531840), False),
    ],
)
def test_control_is_set_right(control: Control, drift: bool) -> None:
    plan = diff(desired(), replace(settled(), control=control))
    assert plan.steps == (FixControl(drift, CONTROL),)


def test_every_step_says_what_it_does() -> None:
    steps = [
        *diff(desired(), replace(NOTHING, lost_pins=("labels",), labels=LabelState(1, 1, 1))).steps,
        *diff(desired("d2", LABELLING_HOOKS), settled()).steps,
        *diff(desired(), replace(settled(), links=links(*ALL_HOOKS, state=LinkState.OUTDATED))).steps,
        Relabel(True, 3),
        UpdateLink(True, "bind4"),
    ]
    assert {type(step).__name__ for step in steps} == {kind.__name__ for kind in Step.__subclasses__()}
    texts = {step.text for step in steps}
    assert all(texts)
    assert len(texts) == len({repr(step) for step in steps})


def rule(section: Section) -> Rule:
    hooks = frozenset({Hook.CONNECT}) if section is Section.EGRESS else frozenset()
    return Rule("r", section, Action.DENY, WHERE, hooks=hooks)


UNIX = rule(Section.EGRESS)._replace(unix=(b"/a",))


def redirecting(protocol: Protocol) -> Rule:
    redirect = Redirect(Endpoint(4, 1), Endpoint(6, 1))
    return rule(Section.EGRESS)._replace(action=Action.REDIRECT, redirect=redirect, protocols=frozenset({protocol}))


def acting(**fields: Any) -> Policy:
    return replace(Policy("p", SUBJECT, WHERE), **fields)


def policy_with(*sections: Section, default: Action = Action.PASS) -> Policy:
    rules = {section: (rule(section),) for section in sections}
    egress, bind = rules.get(Section.EGRESS, ()), rules.get(Section.BIND, ())
    return Policy("p", SUBJECT, WHERE, egress=egress, bind=bind, default_bind=default)


@pytest.mark.parametrize(
    ("policies", "default_action", "hooks"),
    [
        ((), Action.ALLOW, frozenset()),
        ((), Action.DENY, frozenset()),
        ((policy_with(),), Action.ALLOW, LABELLING_HOOKS),
        ((policy_with(),), Action.DENY, ALL_HOOKS),
        ((policy_with(Section.EGRESS),), Action.ALLOW, LABELLING_HOOKS | EGRESS_HOOKS),
        ((policy_with(Section.BIND),), Action.ALLOW, LABELLING_HOOKS | BIND_HOOKS),
        ((policy_with(default=Action.ALLOW),), Action.ALLOW, LABELLING_HOOKS | BIND_HOOKS),
        ((policy_with(Section.BIND, Section.EGRESS),), Action.ALLOW, ALL_HOOKS),
        ((acting(socket=(rule(Section.SOCKET),)),), Action.ALLOW, LABELLING_HOOKS | {"sock_create"}),
        ((acting(tcp=TcpSettings("bbr")),), Action.ALLOW, LABELLING_HOOKS | {"sock_ops"}),
        ((acting(egress=(UNIX,)),), Action.ALLOW, LABELLING_HOOKS | {"connect_unix", "sendmsg_unix"}),
        (
            (acting(egress=(UNIX._replace(redirect=Redirect(name=b"/b")),)),),
            Action.ALLOW,
            LABELLING_HOOKS | {"connect_unix", "sendmsg_unix", "recvmsg_unix", "getpeername_unix"},
        ),
        (
            (acting(egress=(redirecting(Protocol.TCP),)),),
            Action.ALLOW,
            LABELLING_HOOKS | EGRESS_HOOKS | {"getpeername4", "getpeername6", "sock_ops", "getsockopt"},
        ),
        (
            (acting(egress=(redirecting(Protocol.UDP),)),),
            Action.ALLOW,
            LABELLING_HOOKS | EGRESS_HOOKS | {"getpeername4", "getpeername6", "recvmsg4", "recvmsg6"},
        ),
        (
            (acting(bind=(rule(Section.BIND)._replace(action=Action.REWRITE, rewrite=Rewrite(port=80)),)),),
            Action.ALLOW,
            LABELLING_HOOKS | BIND_HOOKS | {"getsockname4", "getsockname6"},
        ),
    ],
)
def test_only_the_hooks_that_policies_need_are_asked_for(
    policies: tuple[Policy, ...], default_action: Action, hooks: frozenset[str]
) -> None:
    policy_set = PolicySet(policies)
    index = compile_image(policy_set, default_action=default_action, generation=1).index
    assert hooks_in_force(index) == hooks


def after(step: Step, seen: ObservedState, wanted: DesiredState) -> ObservedState:
    """What a pass would see after one step."""
    slots = list(seen.slots)
    match step:
        case RepairPins():
            return replace(seen, lost_pins=())
        case FixControl():
            return replace(seen, control=step.control)
        case WriteGeneration():
            slots[step.slot] = SlotState(99, wanted.digest)
            return replace(seen, slots=tuple(slots), labels=replace(seen.labels, wrong=5))
        case AttachLink() | UpdateLink():
            return replace(seen, links={**seen.links, step.name: LinkState.OK})
        case DetachLink():
            return replace(seen, links={name: s for name, s in seen.links.items() if name != step.name})
        case Relabel():
            return replace(seen, labels=replace(seen.labels, wrong=0))
        case Activate():
            return replace(seen, active=step.slot, hooks=wanted.hooks)
        case ClearSlot():
            slots[step.slot] = EMPTY
            return replace(seen, slots=tuple(slots), hooks=seen.hooks if step.slot != seen.active else frozenset())
        case DropLabels():
            return replace(seen, labels=replace(seen.labels, foreign=0, stale=0))
    raise AssertionError(step)


LINKS = st.dictionaries(st.sampled_from(sorted(ALL_HOOKS | {"recvmsg4", "sock_ops"})), st.sampled_from(LinkState))
SLOTS = st.tuples(*[st.sampled_from([EMPTY, SlotState(7, "d1"), SlotState(8, "d2"), SlotState(9, "")])] * 2)
SEEN = st.builds(
    ObservedState,
    control=st.sampled_from([CONTROL, Control(0, 0, 0), replace(CONTROL, root_id=5)]),
    active=st.integers(0, 1),
    slots=SLOTS,
    links=LINKS,
    hooks=st.just(ALL_HOOKS),
    labels=st.builds(LabelState, *[st.integers(0, 2)] * 3),
    lost_pins=st.sampled_from([(), ("labels",)]),
)
WANTED = st.sampled_from(
    [desired("d1"), desired("d2"), desired("d2", LABELLING_HOOKS | EGRESS_HOOKS), desired("", frozenset())]
)


@given(SEEN, WANTED, st.integers(0, 30))
def test_a_pass_broken_off_anywhere_is_finished_by_the_next(seen: ObservedState, wanted: DesiredState, at: int) -> None:
    there = {name for name, state in seen.links.items() if state is not LinkState.MISSING}
    staying = VIEW_HOOKS & there
    if staying & {"getpeername4", "getpeername6"}:
        staying |= {"connect4", "connect6"} & there
    if staying & {"recvmsg4", "recvmsg6"}:
        staying |= {"sendmsg4", "sendmsg6"} & there
    if staying & {"getsockname4", "getsockname6"}:
        staying |= {"bind4", "bind6"} & there
    if staying & {"recvmsg_unix", "getpeername_unix"}:
        staying |= {"connect_unix", "sendmsg_unix"} & there
    for step in diff(wanted, seen).steps[:at]:
        seen = after(step, seen, wanted)
    for step in diff(wanted, seen).steps:
        seen = after(step, seen, wanted)
    assert not diff(wanted, seen)
    assert seen.slots[seen.active].digest == wanted.digest
    attached = {name for name, state in seen.links.items() if state is LinkState.OK}
    assert attached == (wanted.hooks | staying if wanted.digest else set())


@given(SEEN, WANTED)
def test_a_generation_is_whole_labelled_and_hooked_before_it_is_put_in_force(
    seen: ObservedState, wanted: DesiredState
) -> None:
    for step in diff(wanted, seen).steps:
        if isinstance(step, WriteGeneration):
            assert step.slot != seen.active
        if isinstance(step, Activate):
            assert seen.slots[step.slot].digest == wanted.digest
            assert seen.labels.wrong == 0
            assert all(seen.links.get(name) is LinkState.OK for name in wanted.hooks)
        if isinstance(step, DetachLink) and wanted.digest:
            assert seen.slots[seen.active].digest == wanted.digest
        if isinstance(step, ClearSlot) and wanted.digest:
            assert step.slot != seen.active
        seen = after(step, seen, wanted)
