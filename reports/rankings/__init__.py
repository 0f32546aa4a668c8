"""What may be compared with what, and who ranks where: records in, rankings out, nothing about looks."""
