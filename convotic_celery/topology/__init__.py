"""Topology: what the modules need in Pub/Sub, what exists, and how to get from one to the other.

``desired`` (pure) makes the wanted topics, subscriptions and bindings of the handlers; ``actual``
reads what exists; ``plan`` (pure) compares the two; ``apply`` and ``replacement`` carry it out;
``terraform`` (pure) writes the wanted topology as HCL; ``text`` (pure) shows a plan to people.
``rights`` has who needs which right, and ``values`` what the others share.

Imported by the command line and by ``doctor``. It works on a session of the transport and knows
neither Celery nor the runtime.
"""
