"""What reinforcement-learning methods share: their settings, start, batches and bounds penalties."""
