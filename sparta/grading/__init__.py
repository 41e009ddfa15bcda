"""How a program reads an answer and says whether it is right: letters, words, numbers, mathematics, likelihoods; and what a judge is told.

Every reader is strict: what an answer does not say is not guessed, and nothing here knows the right answer while it reads.
"""
