"""The Python end of the page's router worker: JSON messages in, JSON messages out. Imports `models` and below."""
