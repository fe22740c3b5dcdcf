"""`python -m mtf_engine`: see mtf_engine.cli."""

from mtf_engine.cli import app

if __name__ == "__main__":
    app()
