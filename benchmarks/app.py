"""Our app under measurement: no results, and task events only on request."""

from __future__ import annotations

import os

from convotic_celery.app import create_app

app = create_app()
app.conf.task_ignore_result = True
app.conf.worker_send_task_events = bool(os.environ.get("CONVOTIC_TEST_BENCH_EVENTS"))
