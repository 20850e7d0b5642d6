"""Places in the repository that several tests look at."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
RECIPES = sorted((REPOSITORY / "recipes").glob("*.yaml"))
