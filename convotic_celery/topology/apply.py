"""Carrying out a plan. Applying it twice, or from several processes at once, does no harm."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from convotic_celery.topology.plan import AddBinding, Create, Replace, Step, Update
from convotic_celery.topology.replacement import replace_subscription
from convotic_pubsub.topology import SubscriptionSettings, TopicSettings

if TYPE_CHECKING:
    from convotic_celery.topology.plan import Orphan
    from convotic_pubsub.client.admin import Admin

__all__ = ["apply_steps", "delete_orphans"]


def apply_steps(admin: Admin, steps: Iterable[Step], say: Callable[[str], None]) -> None:
    """Do what a plan says, in its order. Blocks.

    Args:
        admin: of the server.
        steps: of the plan.
        say: called with what is done.

    Raises:
        AccessDenied: a permission is missing; what was done before stays.
        ReplacementFailed, PubsubTransportError: see the text; applying again continues.
    """
    for step in steps:
        match step:
            case Create(TopicSettings() as wanted):
                _say_created(admin.create_topic(wanted), "topic", wanted.name, say)
            case Create(SubscriptionSettings() as wanted):
                _say_created(admin.create_subscription(wanted), "subscription", wanted.name, say)
            case Update(TopicSettings() as wanted, differences):
                admin.update_topic(wanted, [each.setting for each in differences])
                say(f"changed topic {wanted.name}")
            case Update(SubscriptionSettings() as wanted, differences):
                admin.update_subscription(wanted, [each.setting for each in differences])
                say(f"changed subscription {wanted.name}")
            case Replace(wanted):
                say(f"replacing subscription {wanted.name}")
                done = replace_subscription(admin, wanted, lambda text: say(f"  {text}"))
                say(
                    f"replaced subscription {wanted.name}"
                    if done
                    else f"subscription {wanted.name} was replaced by another process"
                )
            case AddBinding(binding):
                admin.add_binding(binding.resource, binding.role, binding.member)
                say(f"bound {binding.role} on {binding.resource}")


def _say_created(created: bool, kind: str, name: str, say: Callable[[str], None]) -> None:
    say(f"created {kind} {name}" if created else f"{kind} {name} was created by another process")


def delete_orphans(admin: Admin, orphans: Iterable[Orphan], say: Callable[[str], None]) -> None:
    """Delete orphans, with their messages."""
    for orphan in orphans:
        if orphan.kind == "subscription":
            admin.delete_subscription(orphan.name)
        else:
            admin.delete_topic(orphan.name)
        say(f"deleted {orphan.kind} {orphan.name}")
