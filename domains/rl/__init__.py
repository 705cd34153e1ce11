"""Reinforcement learning as sequence modelling: a decision transformer (Chen et al. 2021)."""
