"""What every process of Marway has to do with its operating system."""
