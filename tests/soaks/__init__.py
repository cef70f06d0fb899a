"""Soaks: what holds a few times is seen to hold thousands of times."""
