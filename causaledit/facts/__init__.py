"""What an edit is: requests, names in text, ways to ask about a relation. Knows no model."""
