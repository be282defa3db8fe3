"""What is known of a file before libllama sees it: the GGUF container, and rules on its meaning."""
