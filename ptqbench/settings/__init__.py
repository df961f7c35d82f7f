"""Settings: the table of what can be set, values and their origins, and requests. No torch."""
