"""Models: loading, the embedded model, chat formatting, generation, exact restoration."""
