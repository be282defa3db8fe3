"""Text over tokens: pieces that become whole characters, and stop strings."""
