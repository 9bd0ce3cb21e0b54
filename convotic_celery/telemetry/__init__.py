"""What a worker says of itself: health, metrics, traces, on one port.

``health.py`` decides, ``probes.py`` looks at the worker, ``metrics.py`` counts, ``server.py``
answers, ``step.py`` wires them into the worker; ``fleet.py`` is one port for several workers. Only
``app.py`` and ``cli/`` import this room.
"""
