"""The parts of a two-stage detector. Constructors take modules and numbers; the YAML under `configs/` mirrors them."""
