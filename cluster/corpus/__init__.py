"""Files and URIs -> rows."""
