"""Decides which node runs when, and on which worker. No IO, no clock, no chance; time comes as an argument.

Other packages use what is exported here, and no module of this package.
"""

from dagorama_broker.scheduler.drafts import Draft
from dagorama_broker.scheduler.effects import Effects, Granted, Obstacle, TakenBack
from dagorama_broker.scheduler.endings import Noticed, Tally
from dagorama_broker.scheduler.limits import Limits, Timing
from dagorama_broker.scheduler.objects import Instance, Node, Run, Slot, Worker
from dagorama_broker.scheduler.obstacles import Explainer, Standing
from dagorama_broker.scheduler.queues import HIGHEST, LOWEST, Lane
from dagorama_broker.scheduler.rebind import DEPLOYED, Adoptable, AdoptedFunction, refuse_uncovered
from dagorama_broker.scheduler.requests import NewRun, Presence
from dagorama_broker.scheduler.retry import Revived
from dagorama_broker.scheduler.scheduler import Scheduler
from dagorama_broker.scheduler.staged_children import staged_cost

__all__ = [
    "DEPLOYED", "HIGHEST", "LOWEST", "Adoptable", "AdoptedFunction", "Draft", "Effects", "Explainer", "Granted",
    "Instance", "Lane", "Limits", "NewRun", "Node", "Noticed", "Obstacle", "Presence", "Revived", "Run", "Scheduler",
    "Slot", "Standing", "TakenBack", "Tally", "Timing", "Worker", "refuse_uncovered", "staged_cost",
]
