"""The sub-commands of ``brain``, one module each with ``configure(parser)``; and what they write with."""
