"""The code that ships: what a recipe needs of this package, as one small file.

`code` weighs and wraps it; `program` says in which order it is made: found (`closure`), read (`strip`), joined (`merge`), decided
(`known`, `fold`), thinned (`prune`, `shrink`) and made short (`members`, `rename`). `standalone` is its entry.
"""
