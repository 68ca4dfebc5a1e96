"""OpenAI's HTTP interface over a router: what a client sends in, what it gets back. No sockets here: the page's service
worker, a test or a server carries the messages.

Imports `models` and below.
"""

from .api import Api, Reply

__all__ = ["Api", "Reply"]
