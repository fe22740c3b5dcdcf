"""Choose how a recommender fuses its predictions: explore, train, compare and export fusion weights."""

__version__ = "0.1.0"
