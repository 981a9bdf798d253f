"""A smaller model that learns from its teacher."""
