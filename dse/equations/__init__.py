"""One published or fitted formula, one function: elementwise, broadcasting, differentiable, total."""
