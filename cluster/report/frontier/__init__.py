"""Quality over cost: the bundles that a recipe search made."""
