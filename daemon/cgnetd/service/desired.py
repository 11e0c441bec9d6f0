# SPDX-License-Identifier: Apache-2.0
"""What should be in force, in the terms of the plan: from a rule index, the settings and the surroundings.

Must not know what is in force.
"""

from __future__ import annotations

from cgnetd.datapath import abi
from cgnetd.datapath.rules import RuleIndex
from cgnetd.datapath.state import DesiredState, hooks_in_force
from cgnetd.datapath.steps import Control
from cgnetd.kernel.features import Features
from cgnetd.service.session import Surroundings
from cgnetd.service.settings import Settings

_REWRITING = frozenset({"redirect_tcp", "redirect_udp", "bind_view", "unix_redirect"})  # of RuleIndex.needs


def desired_state(settings: Settings, surroundings: Surroundings, index: RuleIndex) -> DesiredState:
    """The state with this index in force."""
    views = abi.CONTROL_VIEWS if index.needs & _REWRITING else 0
    root = surroundings.root
    hooks = needed_hooks(index, surroundings.features)
    control = Control(root.id, root.level, settings.audit.window, views, surroundings.netns)
    return DesiredState(index.digest if index.policies else "", hooks, control)


def needed_hooks(index: RuleIndex, features: Features) -> frozenset[str]:
    """The hooks that a generation needs, but for those that the kernel has no place for: what is lost by that was told,
    or refused, when the set was read."""
    return hooks_in_force(index) - features.lacking_hooks()
