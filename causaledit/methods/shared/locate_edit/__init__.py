"""The core that ROME, MEMIT and AlphaEdit share: find where a fact is looked up, decide what to write there.

Read in this order: `layout` (which modules) → `subjects` (which token) → `contexts` (which prompts) → `keys`
(k*) → `values` (v* or z) → `covariance` (what must stay) → `editor`, which holds it together. The three methods
only differ in how they turn keys and values into a change of weights.
"""
