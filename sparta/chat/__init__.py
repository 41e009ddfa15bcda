"""Converts chat turns to token ids: chat templates, the renderer, judge prompts."""
