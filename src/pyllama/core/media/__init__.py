"""Images and sounds: read, checked, cut into chunks, encoded, decoded into a context."""
