"""Everything on disk: shards, the shard queue, manifests, heartbeats, crash logs, content cache."""
