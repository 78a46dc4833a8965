"""The runtime: starts TorchServe fast and safe, keeps it up, and runs its workers through Marway's bootstrap."""
