"""One subscription under any order of events, with the settings that change its behaviour."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.property.emulator.machine import SubscriptionMachine


class OrderedMachine(SubscriptionMachine):
    ordered = True


class BackoffMachine(SubscriptionMachine):
    backoff_seconds = 5


class OrderedBackoffMachine(SubscriptionMachine):
    ordered = True
    backoff_seconds = 5


LIMITS = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

TestPlain = SubscriptionMachine.TestCase
TestOrdered = OrderedMachine.TestCase
TestBackoff = BackoffMachine.TestCase
TestOrderedBackoff = OrderedBackoffMachine.TestCase

for case in (TestPlain, TestOrdered, TestBackoff, TestOrderedBackoff):
    case.settings = LIMITS

del case  # pytest would collect it again
