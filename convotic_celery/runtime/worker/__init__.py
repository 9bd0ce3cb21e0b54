"""Celery's worker with our rules, and how a handler becomes its task and queue.

``worker`` is the program, ``consumer`` its message loop, ``strategy`` and ``request`` take and
settle a message, ``binding`` makes task and queue from a handler's definition, ``lifespan_step``,
``pauses``, ``banner`` and ``logs`` are steps of its start. The top room of the runtime: only
``app`` imports it.
"""
