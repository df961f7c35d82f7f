"""What executes int8: engines, lowering, CPU facts, artifacts."""
