"""What stored trials say: read as plain values, ranked by their objectives, compared by masks."""
