"""Finds ways through mazes with a recurrent network; every answer is walked, and its length checked if asked."""

from .solver import maze

__all__ = ["maze"]
