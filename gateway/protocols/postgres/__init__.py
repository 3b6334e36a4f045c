"""PostgreSQL's frontend/backend protocol 3 (PostgreSQL 18 documentation, chapter 54). Pure.

startup.py takes a connection from its first byte to a signed-in client, upstream.py signs in to
the target, session.py runs everything after; machine.py hands from one to the next.
"""
