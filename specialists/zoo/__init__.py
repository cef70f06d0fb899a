"""Bundled specialists, one folder each: card, model, code."""
