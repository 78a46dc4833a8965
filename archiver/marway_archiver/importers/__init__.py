"""Models of other libraries, made archives: which handler, files and requirements they need."""
