"""What the machine can do, and whether a method keeps its promises."""
