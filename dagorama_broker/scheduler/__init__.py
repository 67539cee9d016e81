"""Decides which node runs when, and on which worker. No IO, no clock, no randomness; time comes as an argument.

Other packages use what is exported here, and no module of this package.
"""

from dagorama_broker.scheduler.ages import ReadyAges
from dagorama_broker.scheduler.demand import HORIZON, SOON, Demand, DemandLook, DemandQuery
from dagorama_broker.scheduler.drafts import Draft
from dagorama_broker.scheduler.effects import Effects, Granted, Obstacle, TakenBack
from dagorama_broker.scheduler.ends import RecentFailure, Tally
from dagorama_broker.scheduler.instances import Instance, NodeBlock
from dagorama_broker.scheduler.limits import KEYS_LEFT_OUT, Limits, Timing
from dagorama_broker.scheduler.mail import Sent, refuse_ended
from dagorama_broker.scheduler.mailboxes import SignalCounts
from dagorama_broker.scheduler.mismatch import ReasonCode
from dagorama_broker.scheduler.objects import Node, Slot, Worker
from dagorama_broker.scheduler.obstacles import Explainer, NodeStatus
from dagorama_broker.scheduler.queues import HIGHEST, LOWEST, FunctionQueue, QueueGate
from dagorama_broker.scheduler.rates import ChangedLimit, queued_of
from dagorama_broker.scheduler.reasons import Cause, Causes, Reason
from dagorama_broker.scheduler.rebind import DEPLOYED, Rebindable, ReboundFunction, refuse_uncovered
from dagorama_broker.scheduler.recording import Recording
from dagorama_broker.scheduler.requests import AnnouncedKey, NewNodes, Start, WorkerInfo, name_key
from dagorama_broker.scheduler.retry import Retried
from dagorama_broker.scheduler.scheduler import Scheduler
from dagorama_broker.scheduler.staged_children import DELAY, staged_cost

__all__ = [
    "DELAY",
    "DEPLOYED",
    "HIGHEST",
    "HORIZON",
    "KEYS_LEFT_OUT",
    "LOWEST",
    "SOON",
    "AnnouncedKey",
    "Cause",
    "Causes",
    "ChangedLimit",
    "Demand",
    "DemandLook",
    "DemandQuery",
    "Draft",
    "Effects",
    "Explainer",
    "FunctionQueue",
    "Granted",
    "Instance",
    "Limits",
    "NewNodes",
    "Node",
    "NodeBlock",
    "NodeStatus",
    "Obstacle",
    "QueueGate",
    "ReadyAges",
    "Reason",
    "ReasonCode",
    "Rebindable",
    "ReboundFunction",
    "RecentFailure",
    "Recording",
    "Retried",
    "Scheduler",
    "Sent",
    "SignalCounts",
    "Slot",
    "Start",
    "TakenBack",
    "Tally",
    "Timing",
    "Worker",
    "WorkerInfo",
    "name_key",
    "queued_of",
    "refuse_ended",
    "refuse_uncovered",
    "staged_cost",
]
