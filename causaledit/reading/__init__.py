"""What a response says of an answer: text in, reading out; knows texts and answers only (docs/judging.md)."""
