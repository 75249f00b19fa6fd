"""CausalScaffold: narratives for edits that have none, checked, and merged into the cases.

Data flow: cases → **ground** (Wikidata) → **generate** (chat endpoint, local model or templates) →
**check** (rules, then a verifier model; what fails is rewritten) → **merge** (the causal-enhanced form).
Each stage writes its own file and resumes from it.
"""
