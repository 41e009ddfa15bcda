"""Sparta Alignment: plan, generate, judge, merge, train, commit; Algorithm 1."""

from sparta.phases.base import Phase
from sparta.phases.commit import Commit
from sparta.phases.generate import Generate
from sparta.phases.generate_and_judge import CombatAndJudge
from sparta.phases.judge import Judge
from sparta.phases.merge import Merge
from sparta.phases.plan import Plan
from sparta.phases.train import Train

PHASES: tuple[Phase, ...] = (Plan(), Generate(), Judge(), Merge(), Train(), Commit())
FUSED: tuple[Phase, ...] = (Plan(), CombatAndJudge(), Merge(), Train(), Commit())
