"""What a model can do beside its edits: lm-eval tasks, bundled or standard, and drift on a text, before and after."""
