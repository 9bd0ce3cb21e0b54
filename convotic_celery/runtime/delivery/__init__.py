"""What a message means, before and after its run. Knows nothing else of the runtime.

``outcome`` is the table that decides, ``settlement`` what it decides between, ``error_text`` what
it reads of an error; all are pure. ``policy`` asks it about what arrives, with ``payload`` and
``attributes``. ``attempts`` is what the store knows of earlier runs, ``replays`` which replays are
genuine, both as ``steps`` of a run. ``carriers`` take a settlement through Celery. ``observing`` is
the seam for all that watches runs; ``counters`` and ``last_outcomes`` count and keep how they end.
"""
