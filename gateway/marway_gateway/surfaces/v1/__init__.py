"""TensorFlow Serving's and KServe's v1 protocol as one surface."""
