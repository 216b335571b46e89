"""The composition root: the console script, the demo and the evaluations."""
