"""Answers, grades, scores, selection, comparison, the log of test-set accesses, and pools derived from scores."""
