"""OpenAI's interface as a server of this machine (`inpage serve --api`): Starlette and uvicorn around `inpage.openai`.

Needs the extra ``inpage[api]``; nothing else of the command line imports it.
"""
