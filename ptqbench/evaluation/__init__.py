"""The evaluation of a case, from its subject to its result."""
