"""What a verified plugin may have here: requested x granted, and a plan that proves the answer.

Everything in this room is pure: it gets the verified bundle, the operator's policy and what the
machine offers, and answers with a `SandboxPlan` or a refusal that names each difference. No file,
clock or process comes in.
"""

from __future__ import annotations

from sandbox_host.admission.plan import SandboxPlan, admit
from sandbox_host.admission.policy import Policy
from sandbox_host.admission.requests import Difference

__all__ = ["Difference", "Policy", "SandboxPlan", "admit"]
