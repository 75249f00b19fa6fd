"""Models: loading, chat formats, batches, generation, scoring, adapters, edits in place, saving."""

from causaledit.support.torchvision import make_torchvision_importable

# the one thing done at import: every module below imports torch, and transformers' model classes come after it
make_torchvision_importable()
