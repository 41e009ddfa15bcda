"""Grades answers by program (letters, words, numbers, mathematics, likelihoods), and holds the rubrics for judges.

Parsing is strict: nothing is guessed, and an answer is parsed without knowledge of the right answer.
"""
