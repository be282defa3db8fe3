"""The command line: ``pyllama info``, ``pyllama demo``; written over the public names only."""
