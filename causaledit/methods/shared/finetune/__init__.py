"""Gradient descent on target tokens: what FT, LoRA and ICE share."""
