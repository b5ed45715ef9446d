"""What a change of the detector brings: numbers of single runs, statistics over runs, and the report made of them."""
