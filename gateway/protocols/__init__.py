"""One folder or file a protocol."""
