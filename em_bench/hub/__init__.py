"""What leaves for others' places: adapters with their cards, our questions as data sets, results in Every Eval Ever's format."""
