"""Dead letters: what is known of them, and what can be done with them. ``app.dead_letters``.

=============== =================================================================================
``entry``       what an index entry is, and how a dead letter becomes one. Pure
``match``       which entries are meant: :class:`Match`, and filters
``deployment``  what a replay works with: the handlers, their queues, and how to publish
``scripts``     what changes and reads it, atomically
``index``       the index: entries, groups, states, the action log
``jobs``        replays and the like in progress: the journal that survives its process
``job_scripts`` what changes and reads the journal, atomically
``recorder``    writes an entry for each dead letter of this process, and calls the hooks
``passes``      goes through a dead-letter subscription: samples it, brings the index in line
``payload_text`` payloads as text to read and to edit. Pure
``sending``     publishes dead letters again and notes it, several batches under way at a time
``work``        does a job: sends, acknowledges, goes on after a crash
``service``     :class:`DeadLetters`, what command line, Flower, dashboard and scripts call
=============== =================================================================================

Imported by the app, which makes one, and by what shows it (``cli``, the dashboard, Flower).
"""

from __future__ import annotations

from convotic_celery.dead_letters.entry import DeadLetter, Group, HistoryItem, Page, State
from convotic_celery.dead_letters.jobs import Job
from convotic_celery.dead_letters.match import Match
from convotic_celery.dead_letters.recorder import DeadLetterEvent
from convotic_celery.dead_letters.service import DeadLetters

__all__ = [
    "DeadLetter",
    "DeadLetterEvent",
    "DeadLetters",
    "Group",
    "HistoryItem",
    "Job",
    "Match",
    "Page",
    "State",
]
