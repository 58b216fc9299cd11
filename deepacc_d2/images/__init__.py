"""One image: read, its spread found, shown to the network at one size and tone, augmented."""
