"""What every reinforcement-learning method shares: its settings, its start, its batches, its bounds penalties."""
