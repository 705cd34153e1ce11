"""One core trained on several domains at once: a domain package as domains/__init__.py describes them.

It is made of the domains' own rooms, and so it stands outside of them: none of these may import another.
"""
