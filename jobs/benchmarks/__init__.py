"""What `fastformers bench` alone needs: what it measures, by which baselines, and its report."""
