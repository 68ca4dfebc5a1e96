"""Test doubles and helpers (imported as ``support``). What stands in for a real part says so in its docstring."""
