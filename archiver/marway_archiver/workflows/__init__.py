"""TorchServe's workflows: a `.war`, and the models that it names, become a graph."""
