"""Data, models, gates and the stages of a trial, in torch. Nothing here knows Ray or the store."""
