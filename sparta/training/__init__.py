"""Training: one job turns one adapter of the pool, and the iteration's preference pairs, into its next adapter.

`factory.train` is the entrance. Jobs come from the phases; nothing here reads the state, a prompt or a recipe file.
"""
