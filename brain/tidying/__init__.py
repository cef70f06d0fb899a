"""What the cleaning of prompts is made of; imports run one way, downwards in this list.

::

    repetitions   lines and paragraphs that were said before
    protecting    what keeps every byte
    shielding     … because a tool's schema describes it
    spelling      words that a list knows better
    blanks        blanks and line ends
    characters    which are blanks, and which show nothing

Nothing here is public: :class:`brain.Cleaner` is.
"""
