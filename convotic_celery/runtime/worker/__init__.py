"""Celery's worker with our rules, and how a handler becomes its task and queue.

``worker`` is the program, ``consumer`` its message loop; ``strategy`` and ``request`` take and
settle a message (``request_class`` has what is the same for all of a handler's), ``task_request``
that of an ordinary task; ``binding`` makes task and queue from a handler's definition.
``lifespan_step``, ``banner`` and ``logs`` are steps of its start,
``last_runs`` of its end. ``pauses`` and ``revokes`` keep in the store what ``commands`` (remote
control) ask for; ``mingling`` asks other workers for the rest. ``events`` sends Celery's task
events, ``run_lines`` logs a line for each run. The top room of the runtime: only ``app`` imports
it.
"""
