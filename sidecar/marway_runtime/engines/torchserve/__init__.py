"""TorchServe: its Java, its configuration, its process."""
