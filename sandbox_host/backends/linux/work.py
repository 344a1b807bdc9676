"""What is known of one start, from its plan to its order, and in which ways it can fall through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sandbox_host.backends.linux.preparation import rest_of

if TYPE_CHECKING:
    from sandbox_host.admission.plan import SandboxPlan
    from sandbox_host.backends.base import Places
    from sandbox_host.backends.linux.cgroup import Cgroup
    from sandbox_host.backends.linux.compile import Compiled, Ids
    from sandbox_host.backends.linux.nursery import Nursery
    from sandbox_host.backends.linux.preparation import Preparation


class ForkError(Exception):
    """No process could be made.

    Attributes:
        cause: what the kernel, or the way to the nursery, said.
    """

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class MisfitError(Exception):
    """A child was prepared for plans that differ from this one."""


class EndedError(Exception):
    """A blank child ended when it was given its order."""


class Work:
    """One start: what is known of it, step by step.

    Attributes:
        preparation: what the child has done, or does, before its order; None if nothing.
        ids: who it is.
        compiled: all that it is to do.
        order: what of that is left for it to do.
        fits: there is such a rest.
        group: its control group, or None.
    """

    ids: Ids
    compiled: Compiled
    order: dict[str, Any]

    def __init__(
        self,
        plan: SandboxPlan,
        places: Places,
        nursery: Nursery,
        preparation: Preparation | None,
    ) -> None:
        self.plan = plan
        self.places = places
        self.nursery = nursery
        self.preparation = preparation
        self.group: Cgroup | None = None
        self.fits = False

    def decided(self, compiled: Compiled) -> None:
        """Take what is to be done, and fill in what follows from it."""
        self.compiled = compiled
        order: dict[str, Any] | None = compiled.order
        if self.preparation is not None:
            order = rest_of(compiled, self.preparation)
        self.fits = order is not None
        ways = self.group.ways_in() if self.group is not None else []
        self.order = {**(order or {}), "groups": ways}
