"""One run of a handler, in whatever pool: from raw data to the exception that says how it ended.

``task`` is what Celery calls, ``attempt`` one attempt and its outcome, ``invoke`` calls the
handler within its ``deadline``, which ``run_timeout`` enforces, by way of ``batches`` if it takes
many messages at once;
``worker_faults`` keeps errors of the worker from counting as the message's, and ``exits`` what is
no ``Exception`` from ending more than the run. ``dead_letter_hook`` and ``canvas`` are what
follows, ``handler_result`` what is known of it later. ``loop``, ``coroutine``, ``current_run`` and
``lifespans`` are the event loop and what lives on it. Knows no pool and no worker.
"""
