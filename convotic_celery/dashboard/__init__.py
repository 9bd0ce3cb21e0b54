"""The dashboard: one page for a deployment's handlers, and the JSON that it is made of.

=================== ============================================================================
``application``     :func:`create_dashboard`: Starlette's application, its errors and its lifespan
``guard``           which requests are answered, and the headers of every answer
``desk``            what an endpoint works with: the app, what may be done, what is known
``figures``         queue lengths, workers and pauses: read when somebody looks, kept for a while
``workers``         the workers that answer, and what they say
``handlers``        all handlers with their figures, and one with its options and an example
``waiting``         delayed messages and workflow runs, from the store
``dead_letters``    dead letters by cause, and what is done with them, on ``app.dead_letters``
``search``          what a person types to find them
``publishing``      publishing from the page
``requests``        reading a request's JSON and query
``static/``         the page: HTML, CSS and modern JavaScript as they are; no build step
=================== ============================================================================

Imported by ``cli`` alone. A request costs the broker nothing unless somebody looks at the page.
"""

from convotic_celery.dashboard.application import create_dashboard

__all__ = ["create_dashboard"]
