"""Engines: one protocol, one adapter each. Nothing above this folder knows which one runs."""
