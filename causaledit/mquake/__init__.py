"""MQuAKE cases: reading, checking, selecting, finding the files."""
