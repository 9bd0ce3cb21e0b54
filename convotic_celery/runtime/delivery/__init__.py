"""What a message means, before and after its run. Knows nothing else of the runtime.

``outcome`` is the table that decides, ``settlement`` what it decides between; both are pure.
``policy`` asks it about what arrives, with ``payload`` and ``attributes``; ``attempts`` is what the
store knows of earlier runs, ``replays`` which replays are genuine, both as ``steps`` of a run.
``carriers`` take a settlement through Celery, ``counters`` count.
"""
