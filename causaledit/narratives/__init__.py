"""CausalScaffold: narratives for edits that have none, checked, and merged into the cases.

Data flow: cases → **ground** (Wikidata) → **generate** (chat endpoint, local model or templates) →
**check** (rules, then a verifier model; failures are written again) → **merge** (the causal-enhanced form).
Each stage writes a file of its own and takes up where it was left.
"""
