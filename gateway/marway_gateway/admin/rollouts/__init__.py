"""Admin routes of rollouts: what they take and answer, how one is planned and told of."""
