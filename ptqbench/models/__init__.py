"""Model factories: torchvision's classifiers and custom models."""
