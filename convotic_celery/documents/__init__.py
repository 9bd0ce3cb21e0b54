"""Documents made of the code: OpenAPI for routes, AsyncAPI for handlers, and pages of both. Pure.

``schemas`` are JSON Schemas of payloads and ``examples`` fit them; ``asyncapi`` is the document of
the handlers, ``page`` shows it. Nothing here is imported by a worker.
"""
