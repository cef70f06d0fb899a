"""How the bundled specialists were made: one recipe each, on a CPU, from a seed. Needs the extra `train`."""
