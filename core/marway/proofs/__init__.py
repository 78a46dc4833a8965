"""What proofs other than those of a load say of a version."""
