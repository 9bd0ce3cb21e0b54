"""One run of a handler, in whatever pool: from raw data to the exception that says how it ended.

``task`` is what Celery calls, ``attempt`` one attempt and its outcome, ``invoke`` calls the
handler within its ``deadline``, ``dead_letter_hook`` and ``canvas`` what follows; ``loop``,
``coroutine`` and ``lifespans`` are the event loop and what lives on it. Knows no pool and no
worker.
"""
