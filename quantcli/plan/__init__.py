"""Model and options become a plan: type, bytes, shard and offset of every tensor; pure, from headers alone."""
