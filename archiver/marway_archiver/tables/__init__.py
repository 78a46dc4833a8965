"""Tables of rows by key, out of Parquet or Arrow files."""
