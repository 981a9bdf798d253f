"""Machines that were measured: what they are, and how right predictions of them were."""
