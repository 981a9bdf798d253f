"""Many machines: corpus -> shards -> pinned actors -> predictions -> bill. Never imports torch."""
