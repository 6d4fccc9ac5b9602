"""Sweeps: Ray Tune schedules, Optuna searches, W&B tracks. No other package imports the three."""
