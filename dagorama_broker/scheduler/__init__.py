"""The heart: what is run when, by whom, and what it leads to. No IO, no clock, no chance; time comes as an argument."""

from dagorama_broker.scheduler.drafts import Draft
from dagorama_broker.scheduler.graph import Tally
from dagorama_broker.scheduler.limits import Limits, Timing
from dagorama_broker.scheduler.objects import Effects, Node, Obstacle, Presence, Slot, Worker
from dagorama_broker.scheduler.obstacles import Explainer, Standing
from dagorama_broker.scheduler.retry import Revived, is_within_reach
from dagorama_broker.scheduler.scheduler import Scheduler
from dagorama_broker.scheduler.submission import NewRun

__all__ = [
    "Draft", "Effects", "Explainer", "Limits", "NewRun", "Node", "Obstacle", "Presence", "Revived", "Scheduler", "Slot",
    "Standing", "Tally", "Timing", "Worker", "is_within_reach",
]
