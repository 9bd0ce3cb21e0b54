"""Publishes delayed messages (``delay=``) when they are due.

Used by ``worker``; knows the context alone.
"""
