"""Engines: one protocol, one adapter each. Nothing above this folder knows which one runs.

Imports `format` and `host`; the protocol imports nothing.
"""
