"""What `fastformers bench` alone needs."""
