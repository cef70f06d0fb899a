"""Gives every variable a value so that no two of a group are equal; every answer is checked by the rules."""
