"""Answers of models: how they are written as JSON, the golden ones, and how those of two versions compare."""
