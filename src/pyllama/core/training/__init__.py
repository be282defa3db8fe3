"""Training an f32 model on windows of tokens."""
