"""KServe and ModelMesh: objects of Kubernetes, as YAML, and the storages that they name."""
