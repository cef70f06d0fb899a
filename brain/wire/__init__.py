"""What goes over the wire to an OpenAI-compatible endpoint, and what may come back.

``writing`` and ``naming``: a request, put together from bytes written before. ``endpoints``: which origins are spoken
to. ``transport``: the guarded client, over ``pooled`` (httpx2) or ``fast`` (aiohttp); ``flight``: one request as
these see it. ``parsing``: answers read strictly and within bounds. ``exchange``: one attempt, priced. ``retrying``:
further attempts, in this one place. Nothing here knows of tools, ladders or runs; :mod:`brain.models` is its only door.
"""
