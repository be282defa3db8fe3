"""Where a model comes from, where its weights go, and how it is written again."""
