"""From turns to token ids: chat template, renderer, judge prompts."""
