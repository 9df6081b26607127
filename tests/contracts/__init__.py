"""What other releases, exports and clients hold us to."""
