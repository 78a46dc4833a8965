"""The one way of a prediction: resolve, answer from the cache, place, attempt, try again."""
