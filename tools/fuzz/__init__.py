"""Mutation fuzzers: each breaks its seeds at random, and shows that no process ends by it."""
