"""Model factories, weights sources and their preprocessing."""
