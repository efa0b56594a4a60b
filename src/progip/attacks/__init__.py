"""Adversarial images: attacks within a budget of pixel values, and accuracy under them."""
