"""The game: match-making, votes, aggregation, reputation, preferences and the replay of one iteration.

Pure: values in, values out. No files, no clock, no models; randomness only from the stream that a caller passes in.
"""
