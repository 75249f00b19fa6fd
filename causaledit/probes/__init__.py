"""What a case is asked, and the asking."""
