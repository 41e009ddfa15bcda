"""An endpoint that speaks OpenAI's protocol."""
