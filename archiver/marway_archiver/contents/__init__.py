"""What an archive holds, and what TorchServe would make of it."""
