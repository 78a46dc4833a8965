"""What packing, publishing and loading an archive have to agree on."""
