"""Training: one job turns one adapter of the pool, and the iteration's preference pairs, into its next adapter; or a new one, and rows of
answers, into an expert.

`factory.train` and `factory.train_expert` are the entrances. Jobs come from the phases; nothing here reads the state, a prompt or a recipe file.
"""
