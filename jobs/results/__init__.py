"""Tables and figures of the READMEs, written from filed measurements; a tool of this project."""
