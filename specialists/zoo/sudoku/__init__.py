"""Solves Sudokus with a recursive reasoner; every answer is checked by the rules."""

from .solver import sudoku

__all__ = ["sudoku"]
