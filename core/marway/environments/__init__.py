"""What a model needs besides what a pod has: requirements, and the wheels that they were locked to."""
