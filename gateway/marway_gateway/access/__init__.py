"""Who may call: tokens and origins."""
