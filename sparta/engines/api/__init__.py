"""The engine for an endpoint with OpenAI's API."""
