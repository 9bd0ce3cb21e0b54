"""From the server to a queue's consumer and back: what is here, and what becomes of it.

``flow`` (transitions), ``delivery``, ``ordering``, ``lease_schedule`` and ``supply`` are pure. What
acts on them: ``consumers`` starts and wires the rest; ``subscription`` executes a delivery's
transitions, ``streams`` brings messages, ``leases``, ``lease_timer`` and ``acks`` keep and end
leases, ``dead_letters`` publishes dead letters, ``guarded_policy`` asks the queue's owner,
``outage`` logs an unavailable server once. They are given ``ports``, never the session.

Imports ``client`` and the pure files; imported by ``session``, and for types by ``kombu``.
Everything belongs to the I/O thread, but for ``Delivery.check_out`` and ``Subscription.settle``.
"""
