"""What a run remembers of its work: sums, a log of receipts, slices that are cut, dead letters."""
