"""The questions that a case is asked, and asking them."""
