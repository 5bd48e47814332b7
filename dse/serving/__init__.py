"""What does one instance do in a serving mode? Passes, memory, modes and arrivals; ``dse.evaluate`` puts them together."""
