"""Answers, grades, scores, selection, comparison, the log of looks at test splits, pools derived from scores."""
