"""Documents made of the code: OpenAPI for routes, AsyncAPI for handlers, and pages of both. Pure.

Nothing here is imported by a worker.
"""
