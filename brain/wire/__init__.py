"""What goes over the wire to an OpenAI-compatible endpoint, and what may come back.

``endpoints``: which origins are spoken to. ``transport``: connections that hold to it. ``parsing``: answers read
strictly and within bounds. ``exchange``: one attempt, priced. ``retrying``: further attempts, in this one place.
Nothing here knows of tools, ladders or runs; :mod:`brain.models` is its only door.
"""
