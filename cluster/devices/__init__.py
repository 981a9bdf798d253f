"""What a machine computes with beside its cores: which cards it has, and who scores with what."""
