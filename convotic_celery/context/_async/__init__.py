"""The context's services for ``async def`` handlers; ``_sync`` is generated from this package."""
