"""What a file alone tells of how it was quantized: without images, running it, or torch."""
