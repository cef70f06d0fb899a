"""What the built-in planner is made of; imports run one way, downwards in this list.

::

    choosing      each tool with its arguments, a rank and a score
    matching      which tool fits, from the words of both
    extraction    typed arguments, each parameter a value of its own
    texts         what could be the value of a text parameter
    candidates    … of an option, a flag, a date
    patterns      … of a parameter with a pattern
    quantities    … of a number
    cues          how the words around a place name a parameter
    references    one tool's answer as another's argument
    clauses       a request that asks for more than one thing
    parameters    a JSON schema, whatever its dialect
    spans         the parts of a request that can be an argument
    moments, numerals, wording    dates, numbers, names
    identity      a key for what cannot be hashed

Nothing here is public: :class:`brain.Planner` is. The lists of names (``*.txt``) are general English.
"""
