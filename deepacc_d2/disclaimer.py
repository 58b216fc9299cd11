"""What every report says."""

DISCLAIMER = "Research software. Not a medical device; nothing here is a diagnosis."
