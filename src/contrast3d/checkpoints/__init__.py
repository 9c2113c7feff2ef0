"""Networks as files for other programs, and published weights into our networks."""
