"""Find winning lottery tickets by learning gates alone, and compare them across seeds."""

__version__ = "0.1.0"
