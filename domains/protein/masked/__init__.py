"""The masked protein language model (../language.py) as a domain of its own: masked residues are predicted."""

from domains.domain import Domain

DOMAIN = Domain(__name__)
