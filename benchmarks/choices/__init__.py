"""What each choice that a quantization has is worth, on networks of several kinds."""
