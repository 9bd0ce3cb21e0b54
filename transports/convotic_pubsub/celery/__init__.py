"""Celery's own queues: kombu's envelope on the wire, AMQP's exchanges, remote control.

``codec``, ``task_headers``, ``routing`` and ``event_rules`` are pure: the wire, what a task's
headers and an event may be, which queue a message goes to; ``compressed`` bounds a body.
``envelope`` is the policy of an ordinary queue. ``exchanges`` publishes; ``bindings`` keeps what is
bound to what on the server. ``transient_queues`` are those of this process, fed by one
``control_subscription``, whose name is a ``process_slots`` number.

Imports ``client`` and the pure files; ``session`` and ``kombu`` import it.
"""
