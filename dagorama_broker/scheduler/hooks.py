"""Makes the nodes of failure hooks, in the step in which their instances end failed, so that one commit has both."""

from __future__ import annotations

from dagorama_broker.model.hooks import HookRow, hook_arguments, hook_node
from dagorama_broker.model.schedules import unpacked_function
from dagorama_broker.scheduler.graph import Graph
from dagorama_broker.scheduler.instances import Instance
from dagorama_broker.scheduler.requests import NewNodes
from dagorama_broker.scheduler.submission import SubmissionPlan


def call_hooks(graph: Graph) -> bool:
    """Make the nodes of hooks of instances that have ended failed. Return whether there is one."""
    made = False
    while graph.calling:
        instance = graph.calling.popleft()
        hook = instance.hook
        if hook is not None and hook.is_due:
            graph.set_hook(instance, hook.silenced())
            SubmissionPlan(graph, [_node(instance, hook, graph.next_node)], {}).make()
            made = True
        instance.live -= 1  # it stood for this node
        if not instance.live:
            graph.end_instance(instance)
    return made


def _node(instance: Instance, hook: HookRow, number: int) -> NewNodes:
    id = hook_node(instance.id, number)
    return NewNodes(
        instance.id,
        id[:12],
        int.from_bytes(id[12:], "big"),
        [unpacked_function(hook.function)],
        [0],
        [hook_arguments(hook.arguments, hook.failure)],
        weight=2,
    )


def silence_hook(graph: Graph, instance: Instance | None) -> None:
    """Ignore the failures of a cancelled instance, so that they do not call its hook, up to a retry."""
    if instance is not None and instance.hook is not None and (instance.hook.is_due or not instance.hook.is_deaf):
        graph.set_hook(instance, instance.hook.silenced())


def revive_hook(graph: Graph, instance: Instance) -> None:
    """Let failures of an instance whose nodes are retried call its hook again."""
    hook = instance.hook
    if hook is not None:
        graph.set_hook(instance, hook.revived(instance.failed))
