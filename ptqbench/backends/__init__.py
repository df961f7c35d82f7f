"""What executes an artifact: one protocol, and one folder per runtime behind it."""
