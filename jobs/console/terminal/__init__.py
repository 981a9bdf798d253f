"""What reaches the terminal, and what comes from it: plain text, lines of progress, signals."""
