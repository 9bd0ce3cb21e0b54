"""What a worker says of itself: health, metrics, traces.

``health`` decides from what ``probes`` find in the worker. ``metrics`` are made from
``run_figures``, an observer of runs, and from what the transport counts; ``exposition`` writes
them. ``server`` answers on one port, ``step`` wires all into the worker, ``fleet`` is one port for
several workers. ``tracing`` is OpenTelemetry's side, ``scaling`` counts the
workers that are needed. Only ``app`` and ``cli`` import this room.
"""
