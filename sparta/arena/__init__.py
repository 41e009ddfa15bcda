"""The game: match-making, votes, aggregation, reputation, preferences and the replay of one iteration.

Pure functions: no files, no clock, no models. All randomness comes from the stream that the caller passes in.
"""
