"""What there is and what it promises: the machine, the structure of a model, the contract of a method."""
