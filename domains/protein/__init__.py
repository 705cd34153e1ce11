"""Protein: residue-pair attention, from a sequence and its profile to a distogram (after Jumper et al. 2021)."""

from domains.domain import Domain

DOMAIN = Domain(__name__)
