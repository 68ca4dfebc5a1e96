"""OpenAI's real client talking to `inpage.openai.Api` without a socket."""

from __future__ import annotations

import openai

from inpage.openai import Api
from inpage.openai.client import http_client


def openai_client(api: Api) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        api_key="none", base_url="http://inpage.local/v1", http_client=http_client(api), max_retries=0
    )
