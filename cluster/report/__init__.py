"""What a run did -> bill, tables, page."""
