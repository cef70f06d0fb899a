"""Routes short customer messages to one of 150 intents; abstains on what is none of them."""

from .classifier import intent

__all__ = ["intent"]
