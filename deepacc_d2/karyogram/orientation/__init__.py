"""Which end of a chromosome is its short arm, and where its centromere is, by a small network."""
