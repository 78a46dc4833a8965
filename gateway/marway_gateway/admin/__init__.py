"""The admin plane: releases with proof, serving settings, loads, deletion, pods and drains, on a port of its own."""
