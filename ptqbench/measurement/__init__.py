"""Numbers with their sample size and interval: speed, accuracy and size of artifacts."""
