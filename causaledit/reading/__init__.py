"""The rule judge's parts: text → names marked → stance of each sentence → what the response commits to."""
