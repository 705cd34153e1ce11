"""The masked protein language model (../language.py) as a domain of its own: residues hidden, and guessed."""

from domains.domain import Domain

DOMAIN = Domain(__name__)
