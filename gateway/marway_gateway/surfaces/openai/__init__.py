"""OpenAI's API as one surface."""
