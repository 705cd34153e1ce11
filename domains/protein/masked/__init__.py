"""The masked protein language model (../language.py) as a domain of its own: residues hidden, and guessed."""
