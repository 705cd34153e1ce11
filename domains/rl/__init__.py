"""Reinforcement learning as sequence modelling: a decision transformer (Chen et al. 2021)."""

from domains.domain import Domain

DOMAIN = Domain(__name__)
