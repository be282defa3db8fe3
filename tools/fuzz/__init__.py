"""Fuzzers: inputs that are nearly right, many thousands of them, for everything that reads one."""
