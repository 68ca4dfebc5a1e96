"""Passes over TIR and Relax, one a file."""
