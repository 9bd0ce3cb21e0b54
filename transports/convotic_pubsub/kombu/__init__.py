"""What kombu and Celery see: thin views on the process's session.

``transport`` is a connection and drives Celery's loop, by way of ``inbox``; ``channel`` publishes
and consumes, and its other half, ``declaring``, has queues (``queue_arguments``) and exchanges;
``message`` and ``qos`` are what is unsettled; ``patience`` knows whether a publish is to be
retried; ``integrations`` and ``monitors`` add what Celery and Flower lack.

Imports everything below; only kombu imports it, and ``runtime`` the types.
"""
